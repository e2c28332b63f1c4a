/* The T5 encoder against plain loops over the same tensors.
 *
 * What can go wrong: scores scaled, distances counted from the key, in the wrong bucket (a text of
 * 150 ids reaches them all) or added in the first layer alone, padding that is seen, gate and up
 * exchanged, the wrong GELU, means removed by a norm, an epsilon other than the config's, bits that
 * change with the batch. */
#include "kernels/base/log.h"
#include "models/t5.h"
#include "tests/models/plain.h"

enum { D = 10, HEADS = 3, HD = 4, IN = HEADS * HD, FF = 14, LAYERS = 2, VOCAB = 17 };
enum { LONG = 150, TEXTS = 4, IDS = LONG + 9 + 1 + 5 };

static const char config[] =
    "{\"d_model\":10,\"d_kv\":4,\"num_heads\":3,\"d_ff\":14,\"num_layers\":2,\"vocab_size\":17,"
    "\"layer_norm_epsilon\":0.03,\"feed_forward_proj\":\"gated-gelu\"}";
static const double eps = 0.03;

/* A long text, one whose last ids are padding, one id, and one of padding but the first. */
static const int32_t length[TEXTS] = {LONG, 9, 1, 5}, seen[TEXTS] = {LONG, 6, 1, 1};
static int32_t ids[IDS];

static checkpoint weights;
static tt_stream *stream;
static tt_config *read;
static tt_t5 *encoder;

#define BIAS "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"

static void list_tensors(checkpoint *c)
{
    static const struct {
        const char *name;
        int n, k; /* k 0: a vector */
    } part[] = {{"0.SelfAttention.q", IN, D},     {"0.SelfAttention.k", IN, D},
                {"0.SelfAttention.v", IN, D},     {"0.SelfAttention.o", D, IN},
                {"0.layer_norm", D, 0},           {"1.DenseReluDense.wi_0", FF, D},
                {"1.DenseReluDense.wi_1", FF, D}, {"1.DenseReluDense.wo", D, FF},
                {"1.layer_norm", D, 0}};
    checkpoint_add(c, "shared.weight", 2, VOCAB, D, 0, 0);
    checkpoint_add(c, "encoder.final_layer_norm.weight", 1, D, 0, 0, 0);
    checkpoint_add(c, BIAS, 2, 32, HEADS, 0, 0);
    for (int i = 0; i < LAYERS; i++)
        for (size_t j = 0; j < sizeof part / sizeof *part; j++) {
            char name[100];
            snprintf(name, sizeof name, "encoder.block.%d.layer.%s.weight", i, part[j].name);
            checkpoint_add(c, name, part[j].k ? 2 : 1, part[j].n, part[j].k, 0, 0);
        }
}

static int open_all(void **state)
{
    (void)state;
    tt_err e = {0};
    tt_log_set_level(TT_LOG_WARN);
    for (int i = 0; i < IDS; i++)
        ids[i] = (i * i + 3 * i) % VOCAB;
    list_tensors(&weights);
    if (tt_stream_open(&stream, "cpu", 2, &e) || checkpoint_open(&weights, NULL, 0.6f, &e) ||
        tt_config_open_text(&read, config, strlen(config), &e))
        return -1;
    checkpoint_scale(&weights, BIAS, 4);
    checkpoint_scale(&weights, "wi_0.weight", 3); /* where two GELUs differ most */
    tensors = &weights;
    return tt_t5_open(&encoder, stream, weights.weights, read, TT_WEIGHTS_F32, &e);
}

static int close_all(void **state)
{
    (void)state;
    tt_t5_close(encoder);
    tt_config_close(read);
    tt_stream_close(stream);
    checkpoint_close(&weights);
    return 0;
}

/* --- the network by plain loops --- */

static void root_normal(double *y, const double *x, const char *at, const char *name)
{
    const float *w = tensor(at, name, ".weight");
    double square = 0;
    for (int i = 0; i < D; i++)
        square += x[i] * x[i] / D;
    for (int i = 0; i < D; i++)
        y[i] = x[i] / sqrt(square + eps) * w[i];
}

/* Keys before the query: buckets 0 to 15, those after it: 16 to 31. The first 8 of each are a
 * distance each, the others double their distance every 2 up to 128. */
static int bucket(int query, int key)
{
    static const int from[] = {8, 12, 16, 23, 32, 46, 64, 91}; /* 8 * 2^(i / 2), rounded up */
    int far = abs(key - query), b = far;
    for (int i = 0; far >= 8 && i < 8; i++)
        if (far >= from[i])
            b = 8 + i;
    return (key > query ? 16 : 0) + b;
}

static void attend(double (*x)[D], const char *at, int rows, int keys)
{
    static double q[LONG][IN], k[LONG][IN], v[LONG][IN];
    const float *table = tensor(BIAS, "", "");
    double h[IN], y[D], bias[HEADS * LONG];
    for (int p = 0; p < rows; p++) {
        root_normal(h, x[p], at, "layer.0.layer_norm");
        linear(q[p], IN, h, D, at, "layer.0.SelfAttention.q");
        linear(k[p], IN, h, D, at, "layer.0.SelfAttention.k");
        linear(v[p], IN, h, D, at, "layer.0.SelfAttention.v");
    }
    for (int p = 0; p < rows; p++) {
        for (int i = 0; i < HEADS * keys; i++)
            bias[i] = table[bucket(p, i % keys) * HEADS + i / keys];
        attend_row(h, q[p], k[0], v[0], IN, keys, HEADS, HD, 1, bias);
        linear(y, D, h, IN, at, "layer.0.SelfAttention.o");
        add_row(x[p], y, D);
    }
}

static void forward(double *out, const int32_t *id, int rows, int keys)
{
    static double x[LONG][D];
    const float *table = tensor("shared.weight", "", "");
    for (int i = 0; i < rows * D; i++)
        x[i / D][i % D] = table[id[i / D] * D + i % D];
    for (int l = 0; l < LAYERS; l++) {
        char at[40];
        double y[D];
        snprintf(at, sizeof at, "encoder.block.%d.", l);
        attend(x, at, rows, keys);
        for (int p = 0; p < rows; p++) {
            root_normal(y, x[p], at, "layer.1.layer_norm");
            gated_mlp(y, y, D, FF, gelu_tanh, at, "layer.1.DenseReluDense.wi_0",
                      "layer.1.DenseReluDense.wi_1", "layer.1.DenseReluDense.wo");
            add_row(x[p], y, D);
        }
    }
    for (int p = 0; p < rows; p++)
        root_normal(out + p * D, x[p], "", "encoder.final_layer_norm");
}

/* --- */

/* Alone the same bits as beside the others. */
static void texts_are_those_of_plain_loops(void **state)
{
    (void)state;
    static float have[IDS * D], alone[LONG * D];
    static double want[LONG * D];
    tt_err e = {0};
    assert_int_equal(tt_t5_encode(encoder, have, ids, length, seen, TEXTS, &e), TT_OK);
    for (int i = 0, at = 0; i < TEXTS; at += length[i++]) {
        forward(want, ids + at, length[i], seen[i]);
        all_near(have + at * D, want, length[i] * D);
        assert_int_equal(tt_t5_encode(encoder, alone, ids + at, &length[i], &seen[i], 1, &e),
                         TT_OK);
        assert_memory_equal(alone, have + at * D, (size_t)(length[i] * D) * sizeof *alone);
    }
}

/* What is not said to be padding is seen. */
static void without_padding_all_ids_are_seen(void **state)
{
    (void)state;
    float have[9 * D];
    double want[9 * D];
    tt_err e = {0};
    assert_int_equal(tt_t5_encode(encoder, have, ids + LONG, &length[1], NULL, 1, &e), TT_OK);
    forward(want, ids + LONG, 9, 9);
    all_near(have, want, 9 * D);
}

static void what_is_wrong_is_named(void **state)
{
    (void)state;
    static const int32_t id[] = {1, VOCAB, 2}, none = 0, two = 2, three = 3;
    float row[3 * D];
    tt_err e = {0};
    assert_int_equal(tt_t5_encode(encoder, row, id, &two, NULL, 1, &e), TT_EINVAL);
    assert_non_null(strstr(e.text, "17"));
    assert_int_equal(tt_t5_encode(encoder, row, id, &none, NULL, 1, &e), TT_EINVAL);
    assert_int_equal(tt_t5_encode(encoder, row, id + 2, &two, &three, 1, &e), TT_EINVAL);
    checkpoint part = {0};
    tt_t5 *t;
    list_tensors(&part);
    assert_int_equal(checkpoint_open(&part, BIAS, 0.6f, &e), TT_OK);
    assert_int_equal(tt_t5_open(&t, stream, part.weights, read, TT_WEIGHTS_F32, &e), TT_EFORMAT);
    assert_null(t);
    assert_non_null(strstr(e.text, "relative_attention_bias"));
    checkpoint_close(&part);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_those_of_plain_loops),
        cmocka_unit_test(without_padding_all_ids_are_seen),
        cmocka_unit_test(what_is_wrong_is_named),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
