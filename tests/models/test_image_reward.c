/* ImageReward against plain loops over the same tensors.
 *
 * What can go wrong: places or the class token on the wrong rows, a picture of which the class row
 * alone is looked at, or another picture's rows, a norm before the sum instead of after it, an
 * epsilon of the other tower (the vision tower's is 1e-6: its rows are small here so that it
 * counts), the wrong GELU, another row than the first scored, a chain folded in another order, a
 * score not standardised, bits that change with the batch. */
#include "kernels/base/log.h"
#include "models/image_reward.h"
#include "tests/models/plain_vit.h"

enum { SIDE = 6, PATCH = 3, ROWS = 5, V = 8, LAYERS = 2 };
enum { D = 12, HEADS = 2, FF = 18, VOCAB = 13, CONTEXT = 7, PLACES = 9 };
enum { PIXELS = 3 * SIDE * SIDE, IMAGES = 17 }; /* more than run at once */

static const char config[] =
    "{\"image_size\":6,\"patch_size\":3,\"vision_width\":8,\"vision_layers\":2,\"vision_heads\":2,"
    "\"max_length\":7,\"mean\":0.4,\"std\":2,\"bert\":{\"hidden_size\":12,"
    "\"num_attention_heads\":2,\"intermediate_size\":18,\"num_hidden_layers\":2,\"vocab_size\":13,"
    "\"max_position_embeddings\":9,\"layer_norm_eps\":0.02}}";
static const double eps = 0.02;

#define VISION "blip.visual_encoder."
#define BERT   "blip.text_encoder."

static const plain_vit tower = {.norm1 = "norm1", .norm2 = "norm2", .qkv = "attn.qkv",
                                .out = "attn.proj", .fc1 = "mlp.fc1", .fc2 = "mlp.fc2",
                                .width = V, .heads = 2, .ff = 4 * V, .eps = 1e-6,
                                .act = gelu_erf};
static const plain_patches patches = {.kernel = VISION "patch_embed.proj.weight",
                                      .bias = VISION "patch_embed.proj.bias",
                                      .class_token = VISION "cls_token",
                                      .place = VISION "pos_embed"};

static const struct {
    const char *name;
    int n, k;
} chain[] = {{"0", 8, D}, {"2", 6, 8}, {"4", 5, 6}, {"6", 4, 5}, {"7", 1, 4}};

static checkpoint weights;
static char folder[64];
static tt_stream *stream;
static tt_reward *reward;
static float planes[IMAGES * PIXELS];

static void list_vision(checkpoint *c)
{
    checkpoint_add(c, patches.kernel, 4, V, 3, PATCH, PATCH);
    checkpoint_add(c, patches.bias, 1, V, 0, 0, 0);
    checkpoint_add(c, patches.class_token, 3, 1, 1, V, 0);
    checkpoint_add(c, patches.place, 3, 1, ROWS, V, 0);
    checkpoint_add_pair(c, VISION, "norm", V, 0);
    for (int i = 0; i < LAYERS; i++) {
        char at[60];
        snprintf(at, sizeof at, VISION "blocks.%d.", i);
        checkpoint_add_pair(c, at, tower.norm1, V, 0);
        checkpoint_add_pair(c, at, tower.norm2, V, 0);
        checkpoint_add_pair(c, at, tower.qkv, 3 * V, V);
        checkpoint_add_pair(c, at, tower.out, V, V);
        checkpoint_add_pair(c, at, tower.fc1, 4 * V, V);
        checkpoint_add_pair(c, at, tower.fc2, V, 4 * V);
    }
}

static void list_reader(checkpoint *c, const char *at, const char *which, int seen)
{
    char part[100];
    snprintf(part, sizeof part, "%s%s.", at, which);
    checkpoint_add_pair(c, part, "self.query", D, D);
    checkpoint_add_pair(c, part, "self.key", D, seen);
    checkpoint_add_pair(c, part, "self.value", D, seen);
    checkpoint_add_pair(c, part, "output.dense", D, D);
    checkpoint_add_pair(c, part, "output.LayerNorm", D, 0);
}

static void list_text(checkpoint *c)
{
    checkpoint_add(c, BERT "embeddings.word_embeddings.weight", 2, VOCAB, D, 0, 0);
    checkpoint_add(c, BERT "embeddings.position_embeddings.weight", 2, PLACES, D, 0, 0);
    checkpoint_add_pair(c, BERT, "embeddings.LayerNorm", D, 0);
    for (int i = 0; i < LAYERS; i++) {
        char at[60];
        snprintf(at, sizeof at, BERT "encoder.layer.%d.", i);
        list_reader(c, at, "attention", D);
        list_reader(c, at, "crossattention", V);
        checkpoint_add_pair(c, at, "intermediate.dense", FF, D);
        checkpoint_add_pair(c, at, "output.dense", D, FF);
        checkpoint_add_pair(c, at, "output.LayerNorm", D, 0);
    }
    for (int i = 0; i < 5; i++)
        checkpoint_add_pair(c, "mlp.layers.", chain[i].name, chain[i].n, chain[i].k);
}

static int open_all(void **state)
{
    (void)state;
    static const char *const small[] = {"patch_embed.proj.weight", "patch_embed.proj.bias",
                                        "cls_token", "pos_embed", "attn.proj.weight",
                                        "attn.proj.bias", "fc2.weight", "fc2.bias"};
    tt_err e = {0};
    tt_log_set_level(TT_LOG_WARN);
    plain_random(planes, IMAGES * PIXELS, 5);
    list_vision(&weights);
    list_text(&weights);
    if (checkpoint_open(&weights, NULL, 0.6f, &e))
        return -1;
    for (int i = 0; i < 8; i++)
        checkpoint_scale(&weights, small[i], 1e-3f);
    checkpoint_scale(&weights, "intermediate.dense.weight", 3); /* where two GELUs differ most */
    checkpoint_scale(&weights, "fc1.weight", 6);
    tensors = &weights;
    if (checkpoint_save(&weights, config, folder) && !tt_stream_open(&stream, "cpu", 2, &e) &&
        !tt_reward_open(&reward, stream, folder, TT_WEIGHTS_F32, &e))
        return 0;
    printf("%s\n", e.text);
    return -1;
}

static int close_all(void **state)
{
    (void)state;
    tt_reward_close(reward);
    tt_stream_close(stream);
    checkpoint_remove(folder);
    checkpoint_close(&weights);
    return 0;
}

static void see(double (*out)[V], const float *picture)
{
    double x[ROWS * V];
    vit_begin(x, picture, SIDE, PATCH, V, &patches);
    for (int i = 0; i < LAYERS; i++) {
        char at[60];
        snprintf(at, sizeof at, VISION "blocks.%d.", i);
        vit_block(&tower, x, ROWS, at);
    }
    for (int p = 0; p < ROWS; p++)
        layer_normal(out[p], x + p * V, V, 1e-6, VISION, "norm");
}

/* x = LN(x + out(attention(x, seen))), rows of `width` numbers seen. */
static void look(double (*x)[D], int rows, const double *seen, int width, int keys, const char *at,
                 const char *which)
{
    double q[CONTEXT][D], k[CONTEXT][D], v[CONTEXT][D], h[D];
    char part[100];
    snprintf(part, sizeof part, "%s%s.", at, which);
    for (int p = 0; p < rows; p++)
        linear(q[p], D, x[p], D, part, "self.query");
    for (int p = 0; p < keys; p++) {
        linear(k[p], D, seen + p * width, width, part, "self.key");
        linear(v[p], D, seen + p * width, width, part, "self.value");
    }
    for (int p = 0; p < rows; p++) {
        attend_row(h, q[p], k[0], v[0], D, keys, HEADS, D / HEADS, 1 / sqrt(D / HEADS), NULL);
        linear(q[p], D, h, D, part, "output.dense");
        add_row(x[p], q[p], D);
        layer_normal(x[p], x[p], D, eps, part, "output.LayerNorm");
    }
}

/* Into x[0]: the row that is scored. */
static void read_prompt(double (*x)[D], const int32_t *id, int n, double (*picture)[V])
{
    const float *word = tensor(BERT, "embeddings.word_embeddings.weight", "");
    const float *place = tensor(BERT, "embeddings.position_embeddings.weight", "");
    for (int p = 0; p < n; p++) {
        for (int i = 0; i < D; i++)
            x[p][i] = (double)word[id[p] * D + i] + place[p * D + i];
        layer_normal(x[p], x[p], D, eps, BERT, "embeddings.LayerNorm");
    }
    for (int l = 0; l < LAYERS; l++) {
        char at[60];
        snprintf(at, sizeof at, BERT "encoder.layer.%d.", l);
        look(x, n, x[0], D, n, at, "attention");
        look(x, n, picture[0], V, ROWS, at, "crossattention");
        for (int p = 0; p < n; p++) {
            double h[FF], y[D];
            linear(h, FF, x[p], D, at, "intermediate.dense");
            for (int i = 0; i < FF; i++)
                h[i] = gelu_erf(h[i]);
            linear(y, D, h, FF, at, "output.dense");
            add_row(x[p], y, D);
            layer_normal(x[p], x[p], D, eps, at, "output.LayerNorm");
        }
    }
}

/* x is used up. */
static double score_of(double x[D])
{
    double y[D] = {0};
    for (int i = 0; i < 5; i++) {
        linear(y, chain[i].n, x, chain[i].k, "mlp.layers.", chain[i].name);
        memcpy(x, y, sizeof y);
    }
    return (x[0] - 0.4) / 2;
}

/* Alone the same bits as beside the others. */
static void scores_of(const int32_t *id, int n)
{
    static float vision[IMAGES * ROWS * V], first[IMAGES * D], score[IMAGES];
    tt_err e = {0};
    if (tt_reward_score(reward, score, planes, IMAGES, id, n, vision, first, &e))
        fail_msg("%s", e.text);
    for (int i = 0; i < IMAGES; i++) {
        double picture[ROWS][V], x[CONTEXT][D];
        float alone;
        see(picture, planes + i * PIXELS);
        all_near(vision + i * ROWS * V, picture[0], ROWS * V);
        read_prompt(x, id, n, picture);
        all_near(first + i * D, x[0], D);
        all_near(&score[i], (double[]){score_of(x[0])}, 1);
        assert_int_equal(tt_reward_score(reward, &alone, planes + i * PIXELS, 1, id, n, NULL, NULL,
                                         &e), TT_OK);
        assert_memory_equal(&alone, &score[i], sizeof alone);
    }
}

static void scores_are_those_of_plain_loops(void **state)
{
    (void)state;
    scores_of((const int32_t[]){11, 3, 0, 7, 7, 2, 12}, CONTEXT);
    scores_of((const int32_t[]){11, 5, 12}, 3);
    scores_of((const int32_t[]){4}, 1);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    static const int32_t id[CONTEXT + 1] = {1, VOCAB};
    float score;
    tt_err e = {0};
    assert_int_equal(tt_reward_score(reward, &score, planes, 1, id, 2, NULL, NULL, &e), TT_EINVAL);
    assert_int_equal(tt_reward_score(reward, &score, planes, 1, id, 0, NULL, NULL, &e), TT_EINVAL);
    assert_int_equal(tt_reward_score(reward, &score, planes, 1, id, CONTEXT + 1, NULL, NULL, &e),
                     TT_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_those_of_plain_loops),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
