/* sdar.c - SDAR: block diffusion on a Qwen3 body. Attention is block-causal, blocks counted from
 * column 0 on, and row i of the head is the distribution of token i; who runs the model plans rows
 * with TT_SEE_BLOCK. A block is denoised until it is full, then its keys and values are final: the
 * rule of sampler llada2_block (SDAR's "low confidence dynamic"), with blocks of 4 unless the
 * checkpoint says otherwise. */
#include "models/nn/hf.h"

static const tt_hf_family family = {.head_norms = true,
                                    .block_length = 4,
                                    .sampler = "llada2_block",
                                    .temperature = 1,
                                    .rope_theta = 1e6};

extern const tt_model_def tt_model_sdar;

static tt_status sdar_open(tt_model **out, tt_stream *s, const tt_weights *w, tt_config *c,
                           tt_weights_mode mode, void (*progress)(void *, double), void *arg,
                           tt_err *e)
{
    return tt_hf_open(out, &tt_model_sdar, &family, s, w, c, mode, progress, arg, e);
}

static const char *const architectures[] = {"SDARForCausalLM", NULL};

const tt_model_def tt_model_sdar = {
    .family = "SDAR",
    .summary = "block diffusion on a Qwen3 body, block-causal",
    .source = "released SDAR code; its checkpoints' names and keys are Qwen3's, none was tried",
    .architectures = architectures,
    .kinds = TT_KIND_BLOCKS,
    .open = sdar_open,
    .close = tt_trunk_model_close,
    .run = tt_trunk_model_run,
    .pass_bytes = tt_trunk_model_pass_bytes,
};
