/* comit_tensors.h - the tensors of a small COMiT, and its config, for tests. */
#ifndef TT_TEST_COMIT_TENSORS_H
#define TT_TEST_COMIT_TENSORS_H

#include "tests/models/checkpoint.h"

enum {
    C_SIDE = 32, C_CROP = 16, C_STRIDE = 8, /* pixels */
    C_CELLS = 16, C_CHANNELS = 4, C_PATCH = 4, C_GRID = C_CELLS / C_PATCH,
    C_WIDTH = 32, C_HEADS = 2, C_LAYERS = 2, C_FF = 64,
    C_TOKENS = 6, C_DIMS = 3, C_CODES = 200,
    C_VAE = 8, /* its width */
};

static const char comit_config[] =
    "{\"predictor\": {\"max_input_size\": 16, \"patch_size\": 4, \"hidden_size\": 32,"
    " \"depth\": 2, \"num_heads\": 2, \"mlp_ratio\": 2.0, \"num_msg_tokens\": 6,"
    " \"msg_tokens_dim\": 3}, \"quantizer\": {\"levels\": [8, 5, 5]},"
    " \"tutti_geometry\": {\"picture\": 32, \"crop\": 16, \"stride\": 8},"
    " \"vae\": {\"tutti_local_autoencoder_config\": {\"block_out_channels\": [8, 8],"
    " \"layers_per_block\": 1, \"norm_num_groups\": 4, \"latent_channels\": 4,"
    " \"scaling_factor\": 0.5}}}";

/* PREFIX + name; ".weight" of [n, k] (rank 2) or [n, k, side, side], and ".bias". */
static inline void add_pair(checkpoint *c, const char *prefix, const char *name, int rank,
                            int64_t n, int64_t k, int64_t side)
{
    char text[160];
    snprintf(text, sizeof text, "%.80s%.60s.weight", prefix, name);
    checkpoint_add(c, text, rank, n, k, side, side);
    snprintf(text, sizeof text, "%.80s%.60s.bias", prefix, name);
    checkpoint_add(c, text, 1, n, 0, 0, 0);
}

static inline void add_vae_block(checkpoint *c, const char *at)
{
    static const char *const part[] = {"norm1", "conv1", "norm2", "conv2"};
    for (int i = 0; i < 4; i++)
        add_pair(c, at, part[i], i % 2 ? 4 : 1, C_VAE, C_VAE, 3);
}

static inline void add_vae_middle(checkpoint *c, const char *side)
{
    static const char *const part[] = {"to_q", "to_k", "to_v", "to_out.0"};
    char at[80];
    for (int i = 0; i < 2; i++) {
        snprintf(at, sizeof at, "vae.vae.%s.mid_block.resnets.%d.", side, i);
        add_vae_block(c, at);
    }
    snprintf(at, sizeof at, "vae.vae.%s.mid_block.attentions.0.", side);
    add_pair(c, at, "group_norm", 1, C_VAE, 0, 0);
    for (int i = 0; i < 4; i++)
        add_pair(c, at, part[i], 2, C_VAE, C_VAE, 0);
}

/* An autoencoder of two levels, the first halving the sides. */
static inline void add_vae(checkpoint *c)
{
    char at[80];
    add_pair(c, "vae.vae.", "encoder.conv_in", 4, C_VAE, 3, 3);
    add_pair(c, "vae.vae.", "decoder.conv_in", 4, C_VAE, C_CHANNELS, 3);
    for (int i = 0; i < 2; i++) {
        snprintf(at, sizeof at, "vae.vae.encoder.down_blocks.%d.resnets.0.", i);
        add_vae_block(c, at);
        for (int k = 0; k < 2; k++) {
            snprintf(at, sizeof at, "vae.vae.decoder.up_blocks.%d.resnets.%d.", i, k);
            add_vae_block(c, at);
        }
    }
    add_pair(c, "vae.vae.", "encoder.down_blocks.0.downsamplers.0.conv", 4, C_VAE, C_VAE, 3);
    add_pair(c, "vae.vae.", "decoder.up_blocks.0.upsamplers.0.conv", 4, C_VAE, C_VAE, 3);
    add_vae_middle(c, "encoder");
    add_vae_middle(c, "decoder");
    add_pair(c, "vae.vae.", "encoder.conv_norm_out", 1, C_VAE, 0, 0);
    add_pair(c, "vae.vae.", "decoder.conv_norm_out", 1, C_VAE, 0, 0);
    add_pair(c, "vae.vae.", "encoder.conv_out", 4, 2 * C_CHANNELS, C_VAE, 3);
    add_pair(c, "vae.vae.", "decoder.conv_out", 4, 3, C_VAE, 3);
    add_pair(c, "vae.vae.", "quant_conv", 4, 2 * C_CHANNELS, 2 * C_CHANNELS, 1);
    add_pair(c, "vae.vae.", "post_quant_conv", 4, C_CHANNELS, C_CHANNELS, 1);
}

static inline void add_comit(checkpoint *c)
{
    static const char p[] = "predictor.";
    const int64_t d = C_WIDTH;
    checkpoint_add(c, "predictor.pos_embed", 3, 1, C_GRID * C_GRID, d, 0);
    checkpoint_add(c, "predictor.r_pos_embed", 3, 1, C_TOKENS, d, 0);
    checkpoint_add(c, "predictor.r_to_pos_embed", 3, 1, C_TOKENS, d, 0);
    checkpoint_add(c, "predictor.c_pos_embed", 3, 1, 1, d, 0);
    checkpoint_add(c, "predictor.r_to_token", 3, 1, 1, d, 0);
    add_pair(c, p, "x_embedder.proj", 4, d, C_CHANNELS, C_PATCH);
    add_pair(c, p, "r_embedder.0", 2, d, C_DIMS, 0);
    add_pair(c, p, "r_embedder.2", 2, d, d, 0);
    add_pair(c, p, "c_embedder.0", 2, d, 2, 0);
    add_pair(c, p, "c_embedder.2", 2, d, d, 0);
    add_pair(c, p, "t_embedder.mlp.0", 2, d, 256, 0);
    add_pair(c, p, "t_embedder.mlp.2", 2, d, d, 0);
    add_pair(c, p, "final_layer.adaLN_modulation.1", 2, 2 * d, d, 0);
    add_pair(c, p, "final_layer.linear", 2, C_PATCH * C_PATCH * C_CHANNELS, d, 0);
    add_pair(c, p, "r_final_layer.linear", 2, C_DIMS, d, 0);
    for (int i = 0; i < C_LAYERS; i++) {
        char at[64];
        snprintf(at, sizeof at, "predictor.blocks.%d.", i);
        add_pair(c, at, "attn.qkv", 2, 3 * d, d, 0);
        add_pair(c, at, "attn.proj", 2, d, d, 0);
        add_pair(c, at, "mlp.fc1", 2, C_FF, d, 0);
        add_pair(c, at, "mlp.fc2", 2, d, C_FF, 0);
        add_pair(c, at, "x_adaLN_modulation.1", 2, 6 * d, d, 0);
        add_pair(c, at, "r_adaLN_modulation.1", 2, 6 * d, d, 0);
    }
    add_vae(c);
}

#endif
