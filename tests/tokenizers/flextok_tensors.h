/* flextok_tensors.h - the tensors of a small FlexTok, and its config, for tests. */
#ifndef TT_TEST_FLEXTOK_TENSORS_H
#define TT_TEST_FLEXTOK_TENSORS_H

#include "tests/tokenizers/comit_tensors.h"

enum {
    F_GRID = 4, F_PATCH = 2, F_CELLS = F_GRID * F_PATCH, F_SIDE = 2 * F_CELLS,
    F_WIDTH = 32, F_HEAD = 16, F_LAYERS = 2, F_FF = 85, F_WAVES = 16,
    F_TOKENS = 6, F_DIMS = 3, F_CODES = 200,
};

#define FLEXTOK_PLACES(name, dim, sizes, kind)                                              \
    "\"" name "\": {\"_target_\": \"f.PositionalEmbeddingAdder\", \"dim\": " dim              \
    ", \"max_sizes\": " sizes ", \"posemb_type\": \"" kind "\", \"posemb_scaling\": \"absolute\"},"
#define FLEXTOK_PATCHES(name)                                                               \
    "\"" name "\": {\"_target_\": \"f.PatchEmbedder\", \"channels_in\": 4, \"dim\": 32,"      \
    " \"patch_sizes\": [2, 2]},"

static const char flextok_config[] =
    "{\"vae\": {\"tutti_local_autoencoder_config\": {\"block_out_channels\": [8, 8],"
    " \"layers_per_block\": 1, \"norm_num_groups\": 4, \"latent_channels\": 4,"
    " \"scaling_factor\": 0.5}},"
    " \"encoder\": {\"module_dict\": {"
    "\"enc_channels_to_last\": {\"_target_\": \"f.PerSampleOp\"},"
    FLEXTOK_PATCHES("enc_patch_emb")
    FLEXTOK_PLACES("enc_posemb_module", "32", "[4, 4]", "sincos")
    "\"enc_register_module\": {\"_target_\": \"f.Registers1D\", \"n_max\": 6},"
    "\"enc_seq_packer\": {\"_target_\": \"f.BlockWiseSequencePacker\"},"
    "\"enc_transformer\": {\"_target_\": \"f.FlexTransformer\", \"dim\": 32, \"depth\": 2,"
    " \"head_dim\": 16},"
    "\"enc_to_latents\": {\"_target_\": \"f.LinearHead\", \"dim_out\": 3}}},"
    " \"regularizer\": {\"levels\": [8, 5, 5]},"
    " \"decoder\": {\"module_dict\": {"
    "\"dec_from_latents\": {\"_target_\": \"f.LinearLayer\", \"dim_in\": 3},"
    FLEXTOK_PLACES("dec_registers_posemb_module", "32", "[6]", "learnable_sum")
    "\"dec_nested_dropout\": {\"_target_\": \"f.MaskedNestedDropout\"},"
    "\"dec_latent_dropout\": {\"_target_\": \"f.LearnedNullCond\"},"
    FLEXTOK_PATCHES("dec_noise_patch_emb")
    FLEXTOK_PLACES("dec_patches_posemb_module", "32", "[4, 4]", "sincos")
    "\"dec_time_embedder\": {\"_target_\": \"f.TimestepEmbedder\","
    " \"frequency_embedding_size\": 16, \"max_timestep\": 1.0},"
    "\"dec_transformer\": {\"_target_\": \"f.FlexTransformer\", \"dim\": 32, \"depth\": 2,"
    " \"head_dim\": 16, \"adaLN_emb_read_key\": \"dec_temb\", \"adaLN_expansion\": 2},"
    "\"dec_repa_unpacker\": {\"_target_\": \"f.SomethingForTraining\"},"
    "\"dec_to_patches\": {\"_target_\": \"f.ToPatchesLinearHead\"}}},"
    " \"flow_matching_noise_module\": {}, \"pipeline\": {}}";

static inline void add_flextok_tower(checkpoint *c, const char *at, bool modulated)
{
    static const char *const part[] = {"wq", "wk", "wv", "proj"};
    char name[120];
    for (int i = 0; i < F_LAYERS; i++) {
        for (int k = 0; k < 4; k++) {
            snprintf(name, sizeof name, "%sblocks.%d.attn.%s.weight", at, i, part[k]);
            checkpoint_add(c, name, 2, F_WIDTH, F_WIDTH, 0, 0);
        }
        for (int k = 1; k <= 3; k++) {
            snprintf(name, sizeof name, "%sblocks.%d.mlp.fc%d.weight", at, i, k);
            checkpoint_add(c, name, 2, k == 2 ? F_WIDTH : F_FF, k == 2 ? F_FF : F_WIDTH, 0, 0);
        }
        snprintf(name, sizeof name, "%sblocks.%d.adaLN_modulation.1", at, i);
        if (modulated)
            add_pair(c, name, "", 2, 12 * F_WIDTH, F_WIDTH, 0);
    }
}

static inline void add_flextok(checkpoint *c)
{
    static const char e[] = "encoder.module_dict.", d[] = "decoder.module_dict.";
    const int64_t w = F_WIDTH, in = 4 * F_PATCH * F_PATCH;
    add_pair(c, e, "enc_patch_emb.patch_proj", 2, w, in, 0);
    checkpoint_add(c, "encoder.module_dict.enc_posemb_module.posembs", 4, 1, w, F_GRID, F_GRID);
    checkpoint_add(c, "encoder.module_dict.enc_register_module.registers", 2, F_TOKENS, w, 0, 0);
    add_pair(c, e, "enc_to_latents.proj", 2, F_DIMS, w, 0);
    add_flextok_tower(c, "encoder.module_dict.enc_transformer.", false);
    add_pair(c, d, "dec_from_latents.proj", 2, w, F_DIMS, 0);
    checkpoint_add(c, "decoder.module_dict.dec_registers_posemb_module.posembs", 4, 1, 1, w,
                   F_TOKENS);
    checkpoint_add(c, "decoder.module_dict.dec_nested_dropout.dropout_mask_token", 1, w, 0, 0, 0);
    checkpoint_add(c, "decoder.module_dict.dec_latent_dropout.nullcond", 1, w, 0, 0, 0);
    add_pair(c, d, "dec_noise_patch_emb.patch_proj", 2, w, in, 0);
    checkpoint_add(c, "decoder.module_dict.dec_patches_posemb_module.posembs", 4, 1, w, F_GRID,
                   F_GRID);
    add_pair(c, d, "dec_time_embedder.mlp.0", 2, w, F_WAVES, 0);
    add_pair(c, d, "dec_time_embedder.mlp.2", 2, w, w, 0);
    add_flextok_tower(c, "decoder.module_dict.dec_transformer.", true);
    add_pair(c, d, "dec_to_patches.adaLN_modulation.1", 2, 2 * w, w, 0);
    add_pair(c, d, "dec_to_patches.proj", 2, in, w, 0);
    add_vae(c);
}

#endif
