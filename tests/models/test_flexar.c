/* FlexAR against plain loops over the same tensors, and what it promises.
 *
 * What can go wrong: a token that sees itself or later ones, a place off by one, a text normalised
 * or read by the wrong branch, a norm without its bias, an epsilon other than 1e-6 (inputs are
 * small here so that it counts), gate and up exchanged, the wrong GELU before the text's second
 * layer, a last norm that is not there, bits that change with the batch. */
#include "kernels/base/log.h"
#include "tests/models/ask.h"
#include "tests/models/plain.h"

enum { D = 12, HEADS = 2, HD = D / HEADS, FF = 20, LAYERS = 2, L = 8, K = 11 };
enum { TEXT = 10, HIDDEN = 14, WORDS = 5 };

#define AR "models.ar_image_model."
#define UP "models.text_encoder.mlp.fc1"

static const char config[] =
    "{\"model\":{\"meta_model\":{\"models\":{\"ar_image_model\":{\"preprocessor\":"
    "{\"token_grid_size\":[8,1],\"codebook_size\":11},\"trunk\":{\"embed_dim\":12,"
    "\"num_blocks\":2,\"self_attn_target\":{\"num_heads\":2}}}}}}}";

typedef struct {
    checkpoint weights;
    bool ends_in_norm;
    tt_config *config;
    tt_generator *model;
} family;

static family families[] = {{.ends_in_norm = true}, {.ends_in_norm = false}};
static tt_stream *stream;
static float words[2][WORDS * TEXT]; /* two texts */

static void list_tensors(checkpoint *c)
{
    static const struct {
        const char *name;
        int n, k;
    } matrix[] = {{"self_attn.qkv", 3 * D, D}, {"self_attn.proj", D, D}, {"cross_attn.Wq", D, D},
                  {"cross_attn.Wk", D, D},     {"cross_attn.Wv", D, D},  {"cross_attn.proj", D, D},
                  {"mlp.fc1", FF, D},          {"mlp.fc3", FF, D},       {"mlp.fc2", D, FF}};
    checkpoint_add(c, AR "preprocessor.embedding.weight", 2, K, D, 0, 0);
    checkpoint_add(c, AR "preprocessor.sos_token_embed", 3, 1, 1, D, 0);
    checkpoint_add(c, AR "preprocessor.positional_embedding", 2, L, D, 0, 0);
    checkpoint_add_pair(c, AR, "trunk.post_trunk_norm", D, 0);
    checkpoint_add(c, AR "head.linear.weight", 2, K, D, 0, 0);
    checkpoint_add(c, UP ".weight", 2, HIDDEN, TEXT, 0, 0);
    checkpoint_add(c, "models.text_encoder.mlp.fc2.weight", 2, D, HIDDEN, 0, 0);
    for (int i = 0; i < LAYERS; i++) {
        char at[60], name[100];
        snprintf(at, sizeof at, AR "trunk.blocks.%d.", i);
        checkpoint_add_pair(c, at, "norm_1", D, 0);
        checkpoint_add_pair(c, at, "norm_2", D, 0);
        checkpoint_add_pair(c, at, "norm_3", D, 0);
        for (size_t j = 0; j < sizeof matrix / sizeof *matrix; j++) {
            snprintf(name, sizeof name, "%s%s.weight", at, matrix[j].name);
            checkpoint_add(c, name, 2, matrix[j].n, matrix[j].k, 0, 0);
        }
    }
}

/* What adds up in a row is small, as is 1e-6; the text's hidden numbers are where two GELUs differ
 * most. */
static void scale_tensors(checkpoint *c)
{
    static const char *const small[] = {"embedding.weight", "sos_token_embed",
                                        "positional_embedding", "attn.proj.weight",
                                        "0.mlp.fc2.weight", "1.mlp.fc2.weight"};
    for (int i = 0; i < 6; i++)
        checkpoint_scale(c, small[i], 1e-3f);
    checkpoint_scale(c, UP ".weight", 4);
}

static int open_family(family *f)
{
    tt_err e = {0};
    list_tensors(&f->weights);
    if (checkpoint_open(&f->weights, f->ends_in_norm ? NULL : AR "trunk.post_trunk_norm.weight",
                        0.6f, &e) ||
        tt_config_open_text(&f->config, config, strlen(config), &e))
        return -1;
    scale_tensors(&f->weights);
    const tt_generator_def *def = tt_generator_find("FlexAR");
    return def->open(&f->model, stream, f->weights.weights, f->config, TT_WEIGHTS_F32, &e);
}

static int open_all(void **state)
{
    (void)state;
    tt_err e = {0};
    tt_log_set_level(TT_LOG_WARN);
    plain_random(words[0], 2 * WORDS * TEXT, 9);
    return tt_stream_open(&stream, "cpu", 2, &e) || open_family(&families[0]) ||
           open_family(&families[1]);
}

static int close_all(void **state)
{
    (void)state;
    for (family *f = families; f < families + 2; f++) {
        tt_generator_close(f->model);
        tt_config_close(f->config);
        checkpoint_close(&f->weights);
    }
    tt_stream_close(stream);
    return 0;
}

/* --- the network by plain loops --- */

static void read_text(double (*out)[D], const float *text, int rows)
{
    for (int r = 0; r < rows; r++) {
        double x[TEXT], h[HIDDEN];
        for (int i = 0; i < TEXT; i++)
            x[i] = text[r * TEXT + i];
        linear(h, HIDDEN, x, TEXT, UP, "");
        for (int i = 0; i < HIDDEN; i++)
            h[i] = gelu_tanh(h[i]);
        linear(out[r], D, h, HIDDEN, "models.text_encoder.mlp.fc2", "");
    }
}

static void attend_to_text(double *x, const char *at, double (*text)[D], int rows)
{
    double h[D], q[D], k[WORDS][D], v[WORDS][D];
    layer_normal(h, x, D, 1e-6, at, "norm_2");
    linear(q, D, h, D, at, "cross_attn.Wq");
    for (int r = 0; r < rows; r++) {
        linear(k[r], D, text[r], D, at, "cross_attn.Wk");
        linear(v[r], D, text[r], D, at, "cross_attn.Wv");
    }
    attend_row(h, q, k[0], v[0], D, rows, HEADS, HD, 1 / sqrt(HD), NULL);
    linear(q, D, h, D, at, "cross_attn.proj");
    add_row(x, q, D);
}

/* Logits of token n - 1, given those before it. */
static void forward(double *logits, const family *f, const int32_t *id, int n, const float *text,
                    int rows)
{
    const float *table = tensor(AR, "preprocessor.embedding.weight", "");
    const float *start = tensor(AR, "preprocessor.sos_token_embed", "");
    const float *place = tensor(AR, "preprocessor.positional_embedding", "");
    double x[L][D], seen[WORDS][D], qkv[L][3 * D], h[D], y[D];
    read_text(seen, text, rows);
    for (int i = 0; i < n * D; i++)
        x[i / D][i % D] = (double)place[i] + (i < D ? start[i] : table[id[i / D - 1] * D + i % D]);
    for (int l = 0; l < LAYERS; l++) {
        char at[60];
        snprintf(at, sizeof at, AR "trunk.blocks.%d.", l);
        for (int p = 0; p < n; p++) {
            layer_normal(h, x[p], D, 1e-6, at, "norm_1");
            linear(qkv[p], 3 * D, h, D, at, "self_attn.qkv");
        }
        for (int p = 0; p < n; p++) {
            attend_row(h, qkv[p], qkv[0] + D, qkv[0] + 2 * D, 3 * D, p + 1, HEADS, HD,
                       1 / sqrt(HD), NULL);
            linear(y, D, h, D, at, "self_attn.proj");
            add_row(x[p], y, D);
            attend_to_text(x[p], at, seen, rows);
            layer_normal(h, x[p], D, 1e-6, at, "norm_3");
            gated_mlp(y, h, D, FF, silu, at, "mlp.fc1", "mlp.fc3", "mlp.fc2");
            add_row(x[p], y, D);
        }
    }
    if (f->ends_in_norm)
        layer_normal(x[n - 1], x[n - 1], D, 1e-6, AR, "trunk.post_trunk_norm");
    linear(logits, K, x[n - 1], D, AR, "head.linear");
}

/* --- the program's --- */

static tt_generator_state *image(const family *f, int text, int rows)
{
    tt_generator_state *st;
    tt_condition c = {.label = {-1, -1, -1, -1}, .text = words[text], .text_rows = rows,
                      .no_text = words[1 - text] + TEXT, .no_text_rows = 1};
    tt_err e = {0};
    if (tt_generator_begin(&st, f->model, &c, NULL, &e))
        fail_msg("%s", e.text);
    return st;
}

static void follows_plain_loops(family *f)
{
    tensors = &f->weights;
    for (int text = 0; text < 2; text++) {
        tt_generator_state *st = image(f, text, WORDS - text);
        asked a;
        for (int n = 1; n <= L; n++, commit(&a, text)) {
            double with[K], without[K], scale = 0.5 * (n % 3); /* guidance comes and goes */
            ask_for(&a, st, n, (float)scale);
            run_asked(f->model, &a, 1);
            forward(with, f, st->id, n, words[text], WORDS - text);
            forward(without, f, st->id, n, words[1 - text] + TEXT, 1);
            for (int k = 0; k < K; k++)
                with[k] += scale * (with[k] - without[k]);
            all_near(a.logits, with, K);
        }
        tt_generator_drop(st);
    }
}

static void tokens_are_those_of_plain_loops(void **state)
{
    (void)state;
    follows_plain_loops(&families[0]);
    follows_plain_loops(&families[1]);
}

/* Images at different tokens, with texts of different lengths, in one step. */
static void bits_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    enum { N = 4 };
    const family *f = &families[0];
    tt_generator_state *state_of[2 * N]; /* alone, then mixed */
    asked one[N], all[N], other;
    for (int i = 0; i < 2 * N; i++) {
        state_of[i] = image(f, i % 2, 1 + i % N);
        for (int t = 0; t < i % N; t++) {
            ask_for(&other, state_of[i], t + 1, 1);
            run_asked(f->model, &other, 1);
            commit(&other, 0);
        }
        ask_for(i < N ? &one[i] : &all[i - N], state_of[i], i % N + 1, 0.5f * (float)(i % N));
        if (i < N)
            run_asked(f->model, &one[i], 1);
    }
    run_asked(f->model, all, N);
    for (int i = 0; i < N; i++) {
        assert_memory_equal(one[i].logits, all[i].logits, K * sizeof *one[i].logits);
        tt_generator_drop(state_of[i]);
        tt_generator_drop(state_of[N + i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_are_those_of_plain_loops),
        cmocka_unit_test(bits_do_not_depend_on_the_batch),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
