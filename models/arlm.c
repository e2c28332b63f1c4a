/* arlm.c - causal language models of the Llama and Qwen kind: guides of guided diffusion and exact
 * likelihood. Who runs one plans rows with TT_SEE_CAUSAL. */
#include "models/nn/hf.h"

#define FAMILY(id, family_name, architecture, follows, ...)                                       \
    static const tt_hf_family id##_family = {__VA_ARGS__};                                        \
    extern const tt_model_def tt_model_##id;                                                      \
    static tt_status id##_open(tt_model **out, tt_stream *s, const tt_weights *w, tt_config *c,   \
                               tt_weights_mode mode, void (*progress)(void *, double), void *arg, \
                               tt_err *e)                                                         \
    {                                                                                             \
        return tt_hf_open(out, &tt_model_##id, &id##_family, s, w, c, mode, progress, arg, e);    \
    }                                                                                             \
    static const char *const id##_architectures[] = {architecture, NULL};                         \
    const tt_model_def tt_model_##id = {                                                          \
        .family = family_name,                                                                    \
        .summary = "causal language model",                                                       \
        .source = follows,                                                                        \
        .architectures = id##_architectures,                                                      \
        .kinds = TT_KIND_CAUSAL,                                                                  \
        .open = id##_open,                                                                        \
        .close = tt_trunk_model_close,                                                            \
        .run = tt_trunk_model_run,                                                                \
        .pass_bytes = tt_trunk_model_pass_bytes,                                                  \
    };

FAMILY(arlm, "Qwen2", "Qwen2ForCausalLM", "released Qwen2.5 checkpoints", .qkv_bias = true,
       .rope_theta = 1e6)
/* Query and key heads are normalised, projections have no biases. */
FAMILY(qwen3, "Qwen3", "Qwen3ForCausalLM", "released Qwen3 checkpoints", .head_norms = true,
       .rope_theta = 1e6)
/* Llama 3.1 and later scale their rotary frequencies; their small ones tie the head. */
FAMILY(llama, "Llama", "LlamaForCausalLM", "released Llama 3 checkpoints", .rope_theta = 10000)
