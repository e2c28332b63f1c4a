/* dream.c - Dream-v0-7B: masked diffusion adapted from Qwen2.5, fully bidirectional, and row i of
 * the head is the distribution of token i + 1 (Ye et al., "Dream 7B", arXiv 2508.15487; tensor
 * names and config keys of the released checkpoints, architecture "DreamModel"). */
#include "models/nn/hf.h"

static const tt_hf_family family = {.qkv_bias = true,
                                    .needs_mask = true,
                                    .row_shift = 1,
                                    .context = 2048, /* what it was trained to fill */
                                    .rope_theta = 1e6};

extern const tt_model_def tt_model_dream;

static tt_status dream_open(tt_model **out, tt_stream *s, const tt_weights *w, tt_config *c,
                            tt_weights_mode mode, void (*progress)(void *, double), void *arg,
                            tt_err *e)
{
    return tt_hf_open(out, &tt_model_dream, &family, s, w, c, mode, progress, arg, e);
}

static const char *const architectures[] = {"DreamModel", NULL};

const tt_model_def tt_model_dream = {
    .family = "Dream",
    .summary = "masked diffusion on a Qwen2.5 body whose rows predict the next column",
    .source = "arXiv 2508.15487 and the released Dream-v0-7B code",
    .architectures = architectures,
    .kinds = TT_KIND_BIDIRECTIONAL | TT_KIND_MEMO,
    .open = dream_open,
    .close = tt_trunk_model_close,
    .run = tt_trunk_model_run,
    .pass_bytes = tt_trunk_model_pass_bytes,
};
