/* arlm.c - causal language models of the Qwen2 type: guides of guided diffusion and exact
 * likelihood. Who runs one plans rows with TT_SEE_CAUSAL. */
#include "models/nn/hf.h"

static const tt_hf_family family = {.qkv_bias = true, .rope_theta = 1e6};

extern const tt_model_def tt_model_arlm;

static tt_status arlm_open(tt_model **out, tt_stream *s, const tt_weights *w, tt_config *c,
                           tt_weights_mode mode, void (*progress)(void *, double), void *arg,
                           tt_err *e)
{
    return tt_hf_open(out, &tt_model_arlm, &family, s, w, c, mode, progress, arg, e);
}

static const char *const architectures[] = {"Qwen2ForCausalLM", NULL};

const tt_model_def tt_model_arlm = {
    .family = "Qwen2",
    .summary = "causal language model",
    .source = "released Qwen2.5 checkpoints",
    .architectures = architectures,
    .kinds = TT_KIND_CAUSAL,
    .open = arlm_open,
    .close = tt_trunk_model_close,
    .run = tt_trunk_model_run,
    .pass_bytes = tt_trunk_model_pass_bytes,
};
