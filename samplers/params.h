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

typedef enum { TT_SELECT_TWO_STEP, TT_SELECT_JOINT } tt_selection;
/* The others are the rules of models/exit.h in its order. */
enum { TT_EXIT_CRITERION_NONE };
typedef enum {
    TT_FREEZE_LATENT,
    TT_FREEZE_ACCELERATION,
    TT_FREEZE_CURVATURE,
    TT_FREEZE_STABLE,
    TT_FREEZE_FIXED,
} tt_freeze;
typedef enum { TT_SEMANTICS_FIXED, TT_SEMANTICS_UPSTREAM } tt_semantics;

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
      "columns denoised together, left to right; divides the answer's length or exceeds it (then " \
      "all are). 0: the model's default")                                                          \
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
      "images: take the features of known tokens from the step before, where the model can")       \
    X(selection, CHOICE, "selection", 0, 1, TT_SELECT_TWO_STEP, tt_selection_names,                \
      "how an insertion is chosen: first where, then what (two_step), or both from one "           \
      "distribution over all places and tokens (joint)")                                           \
    X(position_temperature, FLOAT, "position_temperature", 0, 100, 0, NULL,                        \
      "two_step: 0 takes the likeliest place; above, places are drawn as tokens are")              \
    X(position_top_k, INT, "position_top_k", 0, 1000000, 0, NULL,                                  \
      "two_step: draw only from the k likeliest places; 0: all")                                   \
    X(position_top_p, FLOAT, "position_top_p", 0, 1, 1, NULL,                                      \
      "two_step: draw only from the places that are likeliest and sum to at most this; the best "  \
      "one always")                                                                                \
    X(stopping_threshold, FLOAT, "stopping_threshold", 0, 1, 0.9, NULL,                            \
      "the text is complete when the model is this sure of it; 1: never before the end of the "    \
      "room")                                                                                      \
    X(stopping_temperature, FLOAT, "stopping_temperature", 0.001, 1000, 1, NULL,                   \
      "divides the logits of the classifier that knows whether the text is complete")              \
    X(max_steps, INT, "max_steps", 0, 1000000, 0, NULL,                                            \
      "insertions at most; 0: as many as there is room for")                                       \
    X(force_predict_first_step, BOOL, "force_predict_first_step", 0, 1, 0, NULL,                   \
      "insert a token in the first step even if the text seems complete")                          \
    X(oracle_length, INT, "oracle_length", 0, 1000000, 0, NULL,                                    \
      "stop at so many tokens, those given, [CLS] and [BOS] counted; 0: off")                      \
    X(recurrence, INT, "recurrence", 1, 512, 32, NULL,                                             \
      "recurrent depth: how often the core is applied to a token's state, at most; with forcing "  \
      "to the prompt's. A model says how often by itself")                                         \
    X(exit_criterion, CHOICE, "exit_criterion", 0, 7, TT_EXIT_CRITERION_NONE, tt_exit_names,       \
      "when a token's recurrences end early: its state moves or turns little, the entropy or the " \
      "distribution of the next token (or of its likely part) does, its first choice is stable, "  \
      "or a decider that came with the model says so")                                             \
    X(exit_threshold, FLOAT, "exit_threshold", 0, 1000, 0, NULL,                                   \
      "threshold of the criterion; with forcing, of freezing; 0: the criterion's usual one")       \
    X(exit_first, INT, "exit_first", 0, 512, 0, NULL,                                              \
      "recurrences before the first one after which the criterion is checked")                     \
    X(exit_every, INT, "exit_every", 1, 512, 1, NULL, "check the criterion every so many")         \
    X(exit_in_prompt, BOOL, "exit_in_prompt", 0, 1, 1, NULL,                                       \
      "check it for the prompt too, for all of its tokens together")                               \
    X(kv_entries, INT, "kv_entries", 0, 512, 0, NULL,                                              \
      "keys and values that a core layer keeps of a token: those of its last so many "             \
      "recurrences, the oldest is overwritten; 0: with forcing 1, else of every recurrence")       \
    X(kv_anchor, BOOL, "kv_anchor", 0, 1, 0, NULL,                                                 \
      "overwrite the last of kv_entries, not the oldest: those of the first recurrences stay")     \
    X(kv_lookup, CHOICE, "kv_lookup", 0, 3, 0, tt_lookup_names,                                    \
      "what a recurrence reads of tokens that were run less often: their latest; nothing, they "   \
      "are left out (full); the last of every token; or any of theirs, by chance (randomized)")    \
    X(init_scale, FLOAT, "init_scale", 0, 4, 1, NULL,                                              \
      "scale of the noise that states begin with; 0: they begin as zeros")                         \
    X(continuous_compute, BOOL, "continuous_compute", 0, 1, 0, NULL,                               \
      "a token's state begins with that of the token before it instead of noise")                  \
    X(draft_recurrence, INT, "draft_recurrence", 1, 512, 4, NULL,                                  \
      "recurrences of a drafted token")                                                            \
    X(draft_length, INT, "draft_length", 1, 64, 8, NULL,                                           \
      "tokens drafted before they are verified")                                                   \
    X(accept_ratio, FLOAT, "accept_ratio", 0, 1, 1, NULL,                                          \
      "accept drafts at least so many times as likely as the best token; 1: the token itself")     \
    X(inner_recurrence, INT, "inner_recurrence", 1, 64, 4, NULL,                                   \
      "recurrences of every open position in a step")                                              \
    X(headway, INT, "headway", 1, 64, 1, NULL, "positions opened in a step")                       \
    X(freeze_strategy, CHOICE, "freeze_strategy", 0, 4, TT_FREEZE_LATENT, tt_freeze_names,         \
      "what ends a position: its state moves little (latent-diff), moves evenly "                  \
      "(latent-acceleration-1, -2), its token was drawn again often enough (token-stability), or " \
      "a fixed number of steps (fixed)")                                                           \
    X(max_wavefront, INT, "max_wavefront", 0, 4096, 128, NULL,                                     \
      "positions open at a time, at most; 0: 4096")                                                \
    X(ema_embeds, FLOAT, "ema_embeds", 0, 1, 0.1, NULL,                                            \
      "share of a position's input embedding that is kept from the step before")                   \
    X(state_noise_mixing, FLOAT, "state_noise_mixing", 0, 1, 0, NULL,                              \
      "noise mixed into open states before every step")                                            \
    X(dampened_state_mixer, BOOL, "dampened_state_mixer", 0, 1, 1, NULL,                           \
      "divide that by 1 + the recurrences a position has behind it")                               \
    X(sqrt_mixer, BOOL, "sqrt_mixer", 0, 1, 0, NULL, "mix so that the variance stays")             \
    X(full_prefill, BOOL, "full_prefill", 0, 1, 1, NULL,                                           \
      "run the prompt once with all recurrences; else it is part of the first wave")               \
    X(max_diffusion_steps, INT, "max_diffusion_steps", 1, 1000000, 4096, NULL,                     \
      "from then on a position is frozen every step whether it has converged or not; upstream: "   \
      "end there")                                                                                 \
    X(semantics, CHOICE, "semantics", 0, 1, TT_SEMANTICS_FIXED, tt_semantics_names,                \
      "fixed, or with the released sampler's known mistakes (upstream)")                           \
    X(blend_history, BOOL, "blend_history", 0, 1, 1, NULL,                                         \
      "embeddings of new positions are not scaled down; not given: as semantics says")             \
    X(freeze_prefix, BOOL, "freeze_prefix", 0, 1, 1, NULL,                                         \
      "freeze up to the first open position that has not converged, instead of the last that "     \
      "has; not given: as semantics says")                                                         \
    X(freeze_unchanged, BOOL, "freeze_unchanged", 0, 1, 1, NULL,                                   \
      "freeze up to the first token that changed in this step; not given: as semantics says")

extern const char *const tt_remask_names[], *const tt_cache_names[], *const tt_guide_names[],
    *const tt_order_names[], *const tt_ramp_names[], *const tt_selection_names[],
    *const tt_exit_names[], *const tt_lookup_names[], *const tt_freeze_names[],
    *const tt_semantics_names[]; /* NULL-terminated */

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
