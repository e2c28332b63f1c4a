/* search_help.h - folders of models for tests of searches: a generator by levels and one by single
 * tokens over a codec whose prefixes are pictures, all with random weights, and a small CLIP. */
#ifndef TT_SEARCH_HELP_H
#define TT_SEARCH_HELP_H

#include "tests/models/checkpoint.h"
#include "tests/server/image_help.h"

enum { ORDERED = 16, FIRST_LEVEL = 4, ORDERED_CODES = 64 };

static char search_folder[64];

static inline void put_file(const char *name, const void *data, size_t n)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", search_folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

static inline void put_text_file(const char *name, const char *text)
{
    put_file(name, text, strlen(text));
}

static inline void make_folder(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", search_folder, name);
    assert_int_equal(mkdir(path, 0777), 0);
}

#define GENERATOR(architecture, more)                                                            \
    "{\"architectures\":[\"" architecture "\"],\"model_type\":\"c2i\",\"dim\":16,\"n_layer\":2," \
    "\"n_head\":2,\"multiple_of\":8,\"vocab_size\":64,\"block_size\":16,\"num_classes\":5,"      \
    "\"codec\":\"restok\"" more "}"

static const char codec_config[] =
    "{\"architectures\":[\"ResTok\"],\"dataset\":{\"preprocessing\":{\"crop_size\":32}},"
    "\"model\":{\"vq_model\":{\"codebook_size\":64,\"token_size\":6,\"use_l2_norm\":true,"
    "\"vit_enc_model_size\":\"small\",\"vit_dec_model_size\":\"small\",\"vit_enc_patch_size\":4,"
    "\"vit_dec_patch_size\":4,\"num_latent_tokens\":16,\"num_min_tokens\":4,"
    "\"test_num_latent_tokens\":16,\"merge_tokens\":true,\"hierarchy_stages\":4,"
    "\"reduction_ratio\":0.5,\"residual_image_tokens\":true,\"residual_latent_tokens\":true,"
    "\"learnable_latent_tokens\":false,\"learnable_dec_image_tokens\":true,\"multi_quant\":true,"
    "\"vae_encoder\":true,\"latent_hierarchy\":true,\"learnable_dec_feat_tokens\":true}},"
    "\"tiny_overrides\":{\"width\":48,\"num_layers\":4,\"num_heads\":4,\"pixel\":{"
    "\"hidden_channels\":32,\"channel_mult\":[1,1,2],\"num_res_blocks\":1,\"z_channels\":16}}}";

static const char raster_config[] =
    "{\"architectures\":[\"LlamaGen\"],\"model_type\":\"c2i\",\"dim\":16,\"n_layer\":1,"
    "\"n_head\":2,\"multiple_of\":8,\"vocab_size\":32,\"block_size\":64,\"num_classes\":5,"
    "\"codec\":\"vqgan\"}";

/* --- CLIP --- */

enum { CLIP_WIDTH = 16, CLIP_FF = 32, CLIP_VOCAB = 6, CLIP_CONTEXT = 8, CLIP_SIDE = 16 };

static inline void add_tower(checkpoint *c, const char *prefix)
{
    static const struct {
        const char *name;
        int64_t n, k;
    } part[] = {{"layer_norm1", CLIP_WIDTH, 0},
                {"layer_norm2", CLIP_WIDTH, 0},
                {"mlp.fc1", CLIP_FF, CLIP_WIDTH},
                {"mlp.fc2", CLIP_WIDTH, CLIP_FF},
                {"self_attn.q_proj", CLIP_WIDTH, CLIP_WIDTH},
                {"self_attn.k_proj", CLIP_WIDTH, CLIP_WIDTH},
                {"self_attn.v_proj", CLIP_WIDTH, CLIP_WIDTH},
                {"self_attn.out_proj", CLIP_WIDTH, CLIP_WIDTH}};
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        char name[80];
        snprintf(name, sizeof name, "%s.encoder.layers.0.%s.weight", prefix, part[i].name);
        checkpoint_add(c, name, part[i].k ? 2 : 1, part[i].n, part[i].k, 0, 0);
        snprintf(name, sizeof name, "%s.encoder.layers.0.%s.bias", prefix, part[i].name);
        checkpoint_add(c, name, 1, part[i].n, 0, 0, 0);
    }
}

static inline void add_norm(checkpoint *c, const char *name)
{
    char full[80];
    snprintf(full, sizeof full, "%s.weight", name);
    checkpoint_add(c, full, 1, CLIP_WIDTH, 0, 0, 0);
    snprintf(full, sizeof full, "%s.bias", name);
    checkpoint_add(c, full, 1, CLIP_WIDTH, 0, 0, 0);
}

static inline void make_clip(void)
{
    static checkpoint c;
    tt_err e = {0};
    checkpoint_add(&c, "text_model.embeddings.token_embedding.weight", 2, CLIP_VOCAB, CLIP_WIDTH, 0,
                   0);
    checkpoint_add(&c, "text_model.embeddings.position_embedding.weight", 2, CLIP_CONTEXT,
                   CLIP_WIDTH, 0, 0);
    add_tower(&c, "text_model");
    add_norm(&c, "text_model.final_layer_norm");
    checkpoint_add(&c, "vision_model.embeddings.class_embedding", 1, CLIP_WIDTH, 0, 0, 0);
    checkpoint_add(&c, "vision_model.embeddings.patch_embedding.weight", 4, CLIP_WIDTH, 3, 8, 8);
    checkpoint_add(&c, "vision_model.embeddings.position_embedding.weight", 2, 5, CLIP_WIDTH, 0, 0);
    add_tower(&c, "vision_model");
    add_norm(&c, "vision_model.pre_layrnorm");
    add_norm(&c, "vision_model.post_layernorm");
    checkpoint_add(&c, "text_projection.weight", 2, 8, CLIP_WIDTH, 0, 0);
    checkpoint_add(&c, "visual_projection.weight", 2, 8, CLIP_WIDTH, 0, 0);
    checkpoint_add(&c, "logit_scale", 0, 0, 0, 0, 0);
    assert_int_equal(checkpoint_open(&c, NULL, 0.7f, &e), TT_OK);
    put_file("clip/model.safetensors", c.bytes, c.size);
    checkpoint_close(&c);
    put_text_file("clip/config.json",
                  "{\"architectures\":[\"CLIPModel\"],\"model_type\":\"clip\",\"projection_dim\":8,"
                  "\"text_config\":{\"hidden_size\":16,\"intermediate_size\":32,"
                  "\"num_hidden_layers\":1,\"num_attention_heads\":2,"
                  "\"max_position_embeddings\":8,\"vocab_size\":6,\"eos_token_id\":5},"
                  "\"vision_config\":{\"hidden_size\":16,\"intermediate_size\":32,"
                  "\"num_hidden_layers\":1,\"num_attention_heads\":2,\"image_size\":16,"
                  "\"patch_size\":8}}");
    put_text_file("clip/tokenizer.json",
                  "{\"model\":{\"type\":\"WordLevel\",\"unk_token\":\"?\",\"vocab\":{\"?\":0,"
                  "\"red\":1,\"apple\":2,\"tree\":3,\"[S]\":4,\"[E]\":5}},"
                  "\"pre_tokenizer\":{\"type\":\"Whitespace\"},"
                  "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["
                  "{\"SpecialToken\":{\"id\":\"[S]\",\"type_id\":0}},"
                  "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},"
                  "{\"SpecialToken\":{\"id\":\"[E]\",\"type_id\":0}}],\"pair\":[],"
                  "\"special_tokens\":{\"[S]\":{\"id\":\"[S]\",\"ids\":[4],\"tokens\":[\"[S]\"]},"
                  "\"[E]\":{\"id\":\"[E]\",\"ids\":[5],\"tokens\":[\"[E]\"]}}}}");
}

/* --- all of it --- */

static inline void remove_search_folder(void)
{
    static const char *const names[] = {"raster/vqgan/config.json",
                                        "raster/vqgan",
                                        "raster/config.json",
                                        "raster",
                                        "levels/restok/config.json",
                                        "levels/restok",
                                        "levels/config.json",
                                        "levels",
                                        "next/restok/config.json",
                                        "next/restok",
                                        "next/config.json",
                                        "next",
                                        "clip/config.json",
                                        "clip/tokenizer.json",
                                        "clip/model.safetensors",
                                        "clip",
                                        ""};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s", search_folder, names[i]);
        remove(path);
    }
}

static inline int open_one(const char *id)
{
    tt_err e = {0};
    char path[256];
    snprintf(path, sizeof path, "%s/%s", search_folder, id);
    if (!tt_engine_add_model(api.engine, id, path, TT_WEIGHTS_AUTO, NULL, NULL, &e))
        return 0;
    print_error("%s: %s\n", id, e.text);
    return -1;
}

/* "pic" and "text" of image_help.h, and beside them "levels", "next", "raster" (single tokens
 * of a grid, where only all of them make a picture) and "clip". */
static inline int open_search_api(void **state)
{
    if (open_api(state))
        return -1;
    snprintf(search_folder, sizeof search_folder, "/tmp/test_search.%d", (int)getpid());
    mkdir(search_folder, 0777);
    make_folder("levels");
    make_folder("levels/restok");
    make_folder("next");
    make_folder("next/restok");
    make_folder("raster");
    make_folder("raster/vqgan");
    make_folder("clip");
    put_text_file("raster/config.json", raster_config);
    put_text_file("raster/vqgan/config.json", vqgan_config);
    put_text_file("levels/config.json",
                  GENERATOR("HAR", ",\"ar_token_num\":4,\"spe_token_num\":15"));
    put_text_file("next/config.json", GENERATOR("LlamaGen", ""));
    put_text_file("levels/restok/config.json", codec_config);
    put_text_file("next/restok/config.json", codec_config);
    make_clip();
    return open_one("levels") || open_one("next") || open_one("raster") || open_one("clip") ? -1
                                                                                            : 0;
}

static inline int close_search_api(void **state)
{
    remove_search_folder();
    return close_api(state);
}

#endif
