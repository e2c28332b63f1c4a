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
typedef enum { TT_GUIDE_DETERMINISTIC, TT_GUIDE_TOPK, TT_GUIDE_TOPK_RELATIVE } tt_guide_rule;
typedef enum { TT_CACHE_NONE, TT_CACHE_PREFIX, TT_CACHE_DUAL, TT_CACHE_FREE } tt_cache_kind;

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
    X(cache, CHOICE, "cache", 0, 3, TT_CACHE_NONE, tt_cache_names,                                 \
      "keys and values kept between steps: none; prefix (of columns left of the block); dual (of " \
      "all outside the block); free (of the prompt and finished blocks, never refreshed)")         \
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
      "commit so many tokens of a block in a step when fewer pass the threshold")

extern const char *const tt_remask_names[], *const tt_cache_names[],
    *const tt_guide_names[]; /* NULL-terminated */

#define TT_PARAM_CTYPE_INT int32_t
#define TT_PARAM_CTYPE_FLOAT double
#define TT_PARAM_CTYPE_BOOL bool
#define TT_PARAM_CTYPE_CHOICE int32_t

typedef struct {
#define TT_PARAM_MEMBER(member, type, ...) TT_PARAM_CTYPE_##type member;
    TT_PARAMS(TT_PARAM_MEMBER)
#undef TT_PARAM_MEMBER
    uint64_t given; /* bit i: entry i of the table was set explicitly */
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
double tt_params_get(const tt_params *p, const tt_param *param);

#endif
