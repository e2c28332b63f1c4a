/* params.h - every sampling parameter, once.
 *
 * The table feeds request validation (the `tutti` object and the OpenAI fields of the same
 * names), `tutti generate --set name=value`, --help and the API document. A sampler lists the
 * parameters it reads; setting another one is an error, never ignored. */
#ifndef TT_PARAMS_H
#define TT_PARAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

typedef enum { TT_PARAM_INT, TT_PARAM_FLOAT, TT_PARAM_BOOL, TT_PARAM_CHOICE } tt_param_type;

typedef enum {
    TT_REMASK_CONFIDENCE,
    TT_REMASK_MARGIN,
    TT_REMASK_ENTROPY,
    TT_REMASK_RANDOM,
    TT_REMASK_ORIGIN, /* Dream alone */
} tt_remask;
typedef enum { TT_ORDER_ENAT, TT_ORDER_MASKGIT, TT_ORDER_HALTON } tt_order_choice;
typedef enum { TT_RAMP_LINEAR, TT_RAMP_CONSTANT, TT_RAMP_COSINE } tt_guidance_ramp;
typedef enum { TT_GUIDE_DETERMINISTIC, TT_GUIDE_TOPK, TT_GUIDE_TOPK_RELATIVE } tt_guide_rule;
typedef enum {
    TT_CACHE_NONE,
    TT_CACHE_PREFIX,
    TT_CACHE_DUAL,
    TT_CACHE_FREE,
    TT_CACHE_DKV,
    TT_CACHE_VICINITY,
    TT_CACHE_AUTO,
} tt_cache_kind;

/* X(member, type, name, min, max, default, choices, help) */
#define TT_PARAMS(X)                                                                               \
    X(temperature, FLOAT, "temperature", 0, 100, 0, NULL,                                          \
      "0 takes the most likely token; above, tokens are drawn from softmax(logits / temperature)") \
    X(top_p, FLOAT, "top_p", 0, 1, 1, NULL, "nucleus: draw only from the top probability mass")    \
    X(top_k, INT, "top_k", 0, 1000000, 0, NULL, "draw only from the k most likely tokens; 0: all") \
    X(min_p, FLOAT, "min_p", 0, 1, 0, NULL,                                                        \
      "draw only tokens at least this share as likely as the best one")                            \
    X(steps, INT, "steps", 0, 65536, 0, NULL,                                                      \
      "denoising steps over the whole canvas (llada2_block: of a block); 0: one per token, or "    \
      "1024 (ddpm, analytic)")                                                                     \
    X(block_length, INT, "block_length", 0, 65536, 0, NULL,                                        \
      "columns denoised together, left to right; 0: the model's default")                          \
    X(cfg_scale, FLOAT, "cfg_scale", 0, 100, 0, NULL,                                              \
      "classifier-free guidance: logits move this far away from those without the prompt")         \
    X(remask, CHOICE, "remask", 0, 4, TT_REMASK_CONFIDENCE, tt_remask_names,                       \
      "what orders the commits; origin (sampler dream): chance alone")                             \
    X(remask_temperature, FLOAT, "remask_temperature", 0, 100, 0, NULL,                            \
      "above 0, columns are drawn from softmax(confidence / this) instead of taken best first")    \
    X(eps, FLOAT, "eps", 0, 0.5, 1e-3, NULL, "where the time schedule ends")                       \
    X(threshold, FLOAT, "threshold", 0, 1, 0.9, NULL,                                              \
      "commit every token at least this probable, the best one always")                            \
    X(factor, FLOAT, "factor", 0, 1000, 1, NULL,                                                   \
      "commit the n best while (n + 1) * (1 - probability of the n-th) < factor")                  \
    X(factor_compat, BOOL, "factor_compat", 0, 1, 0, NULL,                                         \
      "follow the released Fast-dLLM code, which commits all when only the last fails")            \
    X(cache, CHOICE, "cache", 0, 6, TT_CACHE_NONE, tt_cache_names,                                 \
      "keys and values kept between steps: none; prefix (of columns left of the block); dual (of " \
      "all outside the block); free (of the prompt and finished blocks, never refreshed); dkv "    \
      "(of tokens one step after their commit); vicinity (of all far from the block); auto (what " \
      "suits the sampler)")                                                                        \
    X(guide_rule, CHOICE, "guide_rule", 0, 2, TT_GUIDE_TOPK_RELATIVE, tt_guide_names,              \
      "when the guide accepts a draft: its first choice; among its guide_k best; or that and at "  \
      "least guide_ratio times as likely as the best")                                             \
    X(guide_k, INT, "guide_k", 1, 20, 2, NULL, "see guide_rule")                                   \
    X(guide_ratio, FLOAT, "guide_ratio", 0, 1, 0.5, NULL, "see guide_rule")                        \
    X(guide_chunk, INT, "guide_chunk", 1, 4096, 32, NULL, "drafts the guide reads in one pass")    \
    X(logits_eos_inf, BOOL, "logits_eos_inf", 0, 1, 0, NULL, "never produce the end token")        \
    X(confidence_eos_eot_inf, BOOL, "confidence_eos_eot_inf", 0, 1, 0, NULL,                       \
      "commit end tokens last")                                                                    \
    X(editing_threshold, FLOAT, "editing_threshold", 0, 1, 0.9, NULL,                              \
      "replace a token of the block when another one is more probable than this")                  \
    X(max_post_steps, INT, "max_post_steps", 0, 1024, 16, NULL,                                    \
      "how often a full block is read again for edits")                                            \
    X(num_to_transfer, INT, "num_to_transfer", 1, 4096, 1, NULL,                                   \
      "commit so many tokens of a block in a step when fewer pass the threshold")                  \
    X(cache_refresh, INT, "cache_refresh", 0, 65536, 0, NULL,                                      \
      "compute all columns again every so many steps; 0: with dkv 8, with prefix and dual when a " \
      "block begins and not again")                                                                \
    X(cache_before, INT, "cache_before", 0, 65536, 16, NULL,                                       \
      "vicinity: columns left of the block computed with it")                                      \
    X(cache_after, INT, "cache_after", 0, 65536, 16, NULL,                                         \
      "vicinity: columns right of the block computed with it")                                     \
    X(cache_warmup, INT, "cache_warmup", 0, 65536, 4, NULL,                                        \
      "vicinity: first steps that compute everything and keep nothing")                            \
    X(early_stop, BOOL, "early_stop", 0, 1, 0, NULL,                                               \
      "when a block with an end token is full, end tokens fill the rest")                          \
    X(early_stop_consecutive, INT, "early_stop_consecutive", 0, 65536, 0, NULL,                    \
      "when the tokens end in so many end tokens and nothing before them is open, end tokens "     \
      "fill the rest; 0: off")                                                                     \
    X(smoothing, FLOAT, "smoothing", 0, 1, 0, NULL,                                                \
      "feed open columns this much of the embedding they expect beside the mask's, at most; 0: "   \
      "the mask alone")                                                                            \
    X(smoothing_start, FLOAT, "smoothing_start", 0, 1, 0.15, NULL, "smoothing at the first step")  \
    X(smoothing_growth, FLOAT, "smoothing_growth", 0, 1, 0.02, NULL,                               \
      "what every step adds to it")                                                                \
    X(threshold_decay, FLOAT, "threshold_decay", 0, 1, 0.02, NULL,                                 \
      "with smoothing the threshold begins at 1 and falls by this every step")                     \
    X(entropy_bound, FLOAT, "entropy_bound", 0, 1000, 0.1, NULL,                                   \
      "commit the n surest while their entropies without the largest sum to at most this (nats)")  \
    X(low_threshold, FLOAT, "low_threshold", 0, 1, 0.4, NULL,                                      \
      "commit the best token of every run of open columns if it is more probable than this")       \
    X(credit_weight, FLOAT, "credit_weight", 0, 100, 0.7, NULL,                                    \
      "a token's logit grows by this times ln(1 + its credit)")                                    \
    X(credit_power, FLOAT, "credit_power", 0, 100, 0.2, NULL,                                      \
      "a step credits the most likely token with its probability to this power")                   \
    X(credit_decay, FLOAT, "credit_decay", 0, 1, 0.8, NULL, "what a step leaves of every credit")  \
    X(kl_threshold, FLOAT, "kl_threshold", 0, 1000, 0.01, NULL,                                    \
      "commit where the distribution moved less than this, in nats")                               \
    X(kl_history, INT, "kl_history", 1, 8, 2, NULL,                                                \
      "steps in a row in which a distribution must move less than kl_threshold")                   \
    X(explore_steps, INT, "explore_steps", 1, 65536, 8, NULL,                                      \
      "slow steps in which a cycle looks how far the block is sure")                               \
    X(explore_threshold, FLOAT, "explore_threshold", 0, 1, 0.1, NULL,                              \
      "a cycle may go to the last column at least this sure")                                      \
    X(explore_window, INT, "explore_window", 1, 16, 2, NULL,                                       \
      "looks that must agree where a cycle ends")                                                  \
    X(explore_spread, FLOAT, "explore_spread", 0, 65536, 1, NULL,                                  \
      "looks agree when their standard deviation, in columns, is below this; else their mean "     \
      "is taken")                                                                                  \
    X(fill_threshold, FLOAT, "fill_threshold", 0, 1, 0.85, NULL,                                   \
      "commit every token at least this probable if there are two, else the best")                 \
    X(draft_threshold, FLOAT, "draft_threshold", 0, 1, 0.6, NULL,                                  \
      "commit tokens more probable than this, the best one always")                                \
    X(verify_threshold, FLOAT, "verify_threshold", 0, 1, 0.9, NULL,                                \
      "take tokens back that are less probable than this from all the others")                     \
    X(order, CHOICE, "order", 0, 2, TT_ORDER_ENAT, tt_order_names,                                 \
      "images: which tokens of a step stand first: the surest (enat, maskgit), or those next in "  \
      "a fixed sequence that is spread over the image (halton)")                                   \
    X(order_temperature, FLOAT, "order_temperature", 0, 100, 1.5, NULL,                            \
      "images: chance in that order, as Gumbel noise that falls to 0 over the steps")              \
    X(guidance_ramp, CHOICE, "guidance_ramp", 0, 2, TT_RAMP_LINEAR, tt_ramp_names,                 \
      "images: how cfg_scale comes in over the steps: linear from 0, constant, or cosine from 0")  \
    X(feature_reuse, BOOL, "feature_reuse", 0, 1, 1, NULL,                                         \
      "images: take the features of known tokens from the step before, where the model can")

extern const char *const tt_remask_names[], *const tt_cache_names[],
    *const tt_guide_names[], *const tt_order_names[], *const tt_ramp_names[]; /* NULL-terminated */

#define TT_PARAM_CTYPE_INT int32_t
#define TT_PARAM_CTYPE_FLOAT double
#define TT_PARAM_CTYPE_BOOL bool
#define TT_PARAM_CTYPE_CHOICE int32_t

typedef struct {
#define TT_PARAM_MEMBER(member, type, ...) TT_PARAM_CTYPE_##type member;
    TT_PARAMS(TT_PARAM_MEMBER)
#undef TT_PARAM_MEMBER
    uint64_t given[2]; /* bit i: entry i of the table was set explicitly; see tt_params_given_at */
} tt_params;

typedef struct {
    const char *name;
    tt_param_type type;
    size_t offset; /* in tt_params */
    double min, max, fallback;
    const char *const *choices; /* TT_PARAM_CHOICE: NULL-terminated names, value = index */
    const char *help;
} tt_param;

const tt_param *tt_param_all(size_t *n);
const tt_param *tt_param_find(const char *name); /* NULL when unknown */

void tt_params_default(tt_params *p);
/* v: the number, 0/1 for a bool, the index for a choice. TT_EINVAL (param = the name, code
 * invalid_value) when out of range, not integral or not finite. */
tt_status tt_params_set(tt_params *p, const tt_param *param, double v, tt_err *e);
/* From text: "0.5", "true", "random". */
tt_status tt_params_set_text(tt_params *p, const tt_param *param, const char *text, tt_err *e);
/* True when entry i of the table, or the one of this name, which must exist, was set explicitly. */
bool tt_params_given_at(const tt_params *p, size_t i);
bool tt_params_given(const tt_params *p, const char *name);
double tt_params_get(const tt_params *p, const tt_param *param);

#endif
