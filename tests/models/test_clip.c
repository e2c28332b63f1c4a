/* CLIP against plain loops over the same tensors, and what a score is.
 *
 * What can go wrong: patches read in another order, places or the class token on the wrong rows,
 * the norm before the image tower left out, an activation or epsilon of the other tower, a text
 * that sees what comes after, another row than the end token's read or normalised, bits that change
 * with the batch, opposite vectors that score below zero. */
#include "kernels/base/log.h"
#include "models/clip.h"
#include "tests/models/plain_vit.h"

enum { SIDE = 6, PATCH = 2, ROWS = 10, D = 12, FF = 20, LAYERS = 2 };
enum { TEXT_D = 8, TEXT_FF = 14, CONTEXT = 7, VOCAB = 13, END = VOCAB - 1, OUT = 5 };
enum { PIXELS = 3 * SIDE * SIDE, IMAGES = 3 };

static const char config[] =
    "{\"architectures\":[\"CLIPModel\"],\"projection_dim\":5,\"vision_config\":{\"image_size\":6,"
    "\"patch_size\":2,\"hidden_size\":12,\"num_hidden_layers\":2,\"num_attention_heads\":3,"
    "\"intermediate_size\":20,\"layer_norm_eps\":0.05},\"text_config\":{\"hidden_size\":8,"
    "\"num_hidden_layers\":2,\"num_attention_heads\":2,\"intermediate_size\":14,"
    "\"layer_norm_eps\":0.02,\"hidden_act\":\"gelu\",\"max_position_embeddings\":7,"
    "\"vocab_size\":13}}";

#define NAMES                                                                           \
    .norm1 = "layer_norm1", .norm2 = "layer_norm2", .q = "self_attn.q_proj",            \
    .k = "self_attn.k_proj", .v = "self_attn.v_proj", .out = "self_attn.out_proj",      \
    .fc1 = "mlp.fc1", .fc2 = "mlp.fc2"

static const plain_vit image_tower = {NAMES, .width = D, .heads = 3, .ff = FF, .eps = 0.05,
                                      .act = quick_gelu};
static const plain_vit text_tower = {NAMES, .width = TEXT_D, .heads = 2, .ff = TEXT_FF,
                                     .eps = 0.02, .act = gelu_erf, .causal = true};
static const plain_patches patches = {
    .kernel = "vision_model.embeddings.patch_embedding.weight",
    .class_token = "vision_model.embeddings.class_embedding",
    .place = "vision_model.embeddings.position_embedding.weight"};

static checkpoint weights;
static char folder[64];
static tt_stream *stream;
static tt_clip *clip;

static void add_tower(checkpoint *c, const char *prefix, const plain_vit *t)
{
    const char *const square[] = {t->q, t->k, t->v, t->out};
    for (int i = 0; i < LAYERS; i++) {
        char at[60];
        snprintf(at, sizeof at, "%s.encoder.layers.%d.", prefix, i);
        checkpoint_add_pair(c, at, t->norm1, t->width, 0);
        checkpoint_add_pair(c, at, t->norm2, t->width, 0);
        for (int j = 0; j < 4; j++)
            checkpoint_add_pair(c, at, square[j], t->width, t->width);
        checkpoint_add_pair(c, at, t->fc1, t->ff, t->width);
        checkpoint_add_pair(c, at, t->fc2, t->width, t->ff);
    }
}

static void list_tensors(checkpoint *c)
{
    add_tower(c, "vision_model", &image_tower);
    add_tower(c, "text_model", &text_tower);
    checkpoint_add(c, patches.kernel, 4, D, 3, PATCH, PATCH);
    checkpoint_add(c, patches.class_token, 1, D, 0, 0, 0);
    checkpoint_add(c, patches.place, 2, ROWS, D, 0, 0);
    checkpoint_add_pair(c, "vision_model.", "pre_layrnorm", D, 0);
    checkpoint_add_pair(c, "vision_model.", "post_layernorm", D, 0);
    checkpoint_add_pair(c, "text_model.", "final_layer_norm", TEXT_D, 0);
    checkpoint_add(c, "text_model.embeddings.token_embedding.weight", 2, VOCAB, TEXT_D, 0, 0);
    checkpoint_add(c, "text_model.embeddings.position_embedding.weight", 2, CONTEXT, TEXT_D, 0, 0);
    checkpoint_add(c, "visual_projection.weight", 2, OUT, D, 0, 0);
    checkpoint_add(c, "text_projection.weight", 2, OUT, TEXT_D, 0, 0);
    checkpoint_add(c, "logit_scale", 0, 0, 0, 0, 0);
}

static int open_all(void **state)
{
    (void)state;
    tt_err e = {0};
    tt_log_set_level(TT_LOG_WARN);
    list_tensors(&weights);
    if (checkpoint_open(&weights, NULL, 0.6f, &e) || !checkpoint_save(&weights, config, folder) ||
        tt_stream_open(&stream, "cpu", 2, &e) ||
        tt_clip_open(&clip, stream, folder, TT_WEIGHTS_F32, &e)) {
        printf("%s\n", e.text);
        return -1;
    }
    tensors = &weights;
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    tt_clip_close(clip);
    tt_stream_close(stream);
    checkpoint_remove(folder);
    checkpoint_close(&weights);
    return 0;
}

/* A tower's blocks; hidden: rows after each layer, of which `all` lie between two layers'. */
static void run_blocks(const plain_vit *t, const char *prefix, double *x, int rows, int all,
                       double *hidden)
{
    for (int i = 0; i < LAYERS; i++) {
        char at[60];
        snprintf(at, sizeof at, "%s.encoder.layers.%d.", prefix, i);
        vit_block(t, x, rows, at);
        memcpy(hidden + i * all * t->width, x, (size_t)(rows * t->width) * sizeof *x);
    }
}

static void plain_image(double *vector, double *hidden, const float *planes, int images)
{
    double x[ROWS * D], row[D];
    vit_begin(x, planes, SIDE, PATCH, D, &patches);
    for (int p = 0; p < ROWS; p++)
        layer_normal(x + p * D, x + p * D, D, 0.05, "vision_model.", "pre_layrnorm");
    run_blocks(&image_tower, "vision_model", x, ROWS, images * ROWS, hidden);
    layer_normal(row, x, D, 0.05, "vision_model.", "post_layernorm");
    linear(vector, OUT, row, D, "visual_projection", "");
}

static void plain_text(double *vector, double *hidden, const int32_t *id, int n, int all)
{
    const float *token = tensor("text_model.embeddings.token_embedding", "", ".weight");
    const float *place = tensor("text_model.embeddings.position_embedding", "", ".weight");
    double x[CONTEXT * TEXT_D], row[TEXT_D];
    int end = 0;
    for (int i = 0; i < n * TEXT_D; i++)
        x[i] = (double)token[id[i / TEXT_D] * TEXT_D + i % TEXT_D] + place[i];
    run_blocks(&text_tower, "text_model", x, n, all, hidden);
    while (id[end] != END)
        end++;
    layer_normal(row, x + end * TEXT_D, TEXT_D, 0.02, "text_model.", "final_layer_norm");
    linear(vector, OUT, row, TEXT_D, "text_projection", "");
}

/* Alone the same bits as beside the others. */
static void pictures_are_those_of_plain_loops(void **state)
{
    (void)state;
    static double want[OUT], hidden[LAYERS][IMAGES][ROWS][D];
    static float planes[IMAGES * PIXELS], seen[LAYERS * IMAGES * ROWS * D];
    float have[IMAGES * OUT], alone[OUT];
    tt_err e = {0};
    plain_random(planes, IMAGES * PIXELS, 3);
    assert_int_equal(tt_clip_images(clip, have, planes, IMAGES, seen, &e), TT_OK);
    for (int i = 0; i < IMAGES; i++) {
        plain_image(want, hidden[0][i][0], planes + i * PIXELS, IMAGES);
        all_near(have + i * OUT, want, OUT);
        assert_int_equal(tt_clip_images(clip, alone, planes + i * PIXELS, 1, NULL, &e), TT_OK);
        assert_memory_equal(alone, have + i * OUT, sizeof alone);
    }
    all_near(seen, hidden[0][0][0], LAYERS * IMAGES * ROWS * D);
}

/* A full context, the shortest text, and one with ids behind its end, another end among them. */
static void texts_are_those_of_plain_loops(void **state)
{
    (void)state;
    static const int32_t length[] = {7, 1, 6}, id[] = {11, 0, 3, 3, 7, 1, END, END,
                                                       11, 5, END, 2, END, 4};
    static double want[OUT], hidden[LAYERS][14][TEXT_D];
    static float seen[LAYERS * 14 * TEXT_D];
    float have[3 * OUT], alone[OUT];
    tt_err e = {0};
    assert_int_equal(tt_clip_texts(clip, have, id, length, 3, seen, &e), TT_OK);
    for (int i = 0, at = 0; i < 3; at += length[i++]) {
        plain_text(want, hidden[0][at], id + at, length[i], 14);
        all_near(have + i * OUT, want, OUT);
        assert_int_equal(tt_clip_texts(clip, alone, id + at, &length[i], 1, NULL, &e), TT_OK);
        assert_memory_equal(alone, have + i * OUT, sizeof alone);
    }
    all_near(seen, hidden[0][0], LAYERS * 14 * TEXT_D);
    int32_t two[] = {3, END}, three[] = {3, END, 5}, n = 2, m = 3;
    float same[OUT];
    assert_int_equal(tt_clip_texts(clip, alone, two, &n, 1, NULL, &e), TT_OK);
    assert_int_equal(tt_clip_texts(clip, same, three, &m, 1, NULL, &e), TT_OK);
    assert_memory_equal(alone, same, sizeof alone);
}

static void a_score_is_an_angle(void **state)
{
    (void)state;
    const float a[] = {3, 4}, b[] = {0, 2}, away[] = {-3, -4}, none[] = {0, 0};
    assert_true(fabs(tt_clip_score(a, b, 2) - 2.5 * 0.8) < 1e-6);
    assert_true(fabs(tt_clip_score(a, a, 2) - 2.5) < 1e-6);
    assert_true(tt_clip_score(a, away, 2) == 0 && tt_clip_score(a, none, 2) == 0);
    const tt_clip_info *about = tt_clip_about(clip);
    double scale = *tensor("logit_scale", "", "");
    assert_true(fabs(about->logit_scale - exp(scale)) < 1e-5);
    assert_int_equal(about->end_id, END);
    int32_t id[CONTEXT + 2] = {1, 2, 3, 4, 5, 6, 7, 8, END};
    assert_int_equal(tt_clip_cut(about, id, CONTEXT + 2), CONTEXT);
    assert_true(id[CONTEXT - 2] == 6 && id[CONTEXT - 1] == END);
}

static void what_is_wrong_is_named(void **state)
{
    (void)state;
    static const int32_t id[] = {3, END, 13, 2}, zero = 0, one = 1, three = 3;
    float vector[OUT];
    tt_err e = {0};
    assert_int_equal(tt_clip_texts(clip, vector, id, &one, 1, NULL, &e), TT_EINVAL);
    assert_non_null(strstr(e.text, "end token"));
    assert_int_equal(tt_clip_texts(clip, vector, id, &three, 1, NULL, &e), TT_EINVAL);
    assert_non_null(strstr(e.text, "13"));
    assert_int_equal(tt_clip_texts(clip, vector, id, &zero, 1, NULL, &e), TT_EINVAL);
    checkpoint part = {0};
    char at[64];
    tt_clip *c;
    list_tensors(&part);
    assert_int_equal(checkpoint_open(&part, "text_projection.weight", 0.6f, &e), TT_OK);
    assert_true(checkpoint_save(&part, config, at));
    assert_int_equal(tt_clip_open(&c, stream, at, TT_WEIGHTS_F32, &e), TT_EFORMAT);
    assert_null(c);
    assert_non_null(strstr(e.text, "text_projection.weight"));
    checkpoint_remove(at);
    checkpoint_close(&part);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pictures_are_those_of_plain_loops),
        cmocka_unit_test(texts_are_those_of_plain_loops),
        cmocka_unit_test(a_score_is_an_angle),
        cmocka_unit_test(what_is_wrong_is_named),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
