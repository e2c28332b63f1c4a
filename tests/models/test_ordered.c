/* HAR and LlamaGen against plain loops over the same tensors, and what their states promise.
 *
 * What can go wrong: a level that reads the wrong tokens or special vectors, sees the next level or
 * not all of its own, a label of a second group lost or added twice, rotations of other pairs, keys
 * of one branch in the other's store, a token fed twice or not at all when levels are committed,
 * bits that change with the batch, a fork that shares keys with its origin. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/base/log.h"
#include "tests/models/ask.h"
#include "tests/models/checkpoint.h"

enum { D = 12, HEADS = 2, HD = D / HEADS, FF = 32, LAYERS = 2, L = 16, K = 11, CLASSES = 5 };
enum { AHEAD = 2, SPECIALS = L / 2 - 1 };

typedef struct {
    const char *config;
    int ahead; /* 0: one token after the other */
    checkpoint tensors;
    tt_config *read;
    tt_generator *model;
} family;

#define SIZES                                                                         \
    "\"model_type\":\"c2i\",\"dim\":12,\"n_layer\":2,\"n_head\":2,\"multiple_of\":8," \
    "\"vocab_size\":11,\"block_size\":16,\"num_classes\":5"

static family har = {.config = "{\"architectures\":[\"HAR\"]," SIZES
                               ",\"ar_token_num\":2,\"spe_token_num\":7}",
                     .ahead = AHEAD};
static family grouped = {.config = "{\"architectures\":[\"HAR\"]," SIZES
                                   ",\"label_groups\":[3,2],\"ar_token_num\":2"
                                   ",\"spe_token_num\":7}",
                         .ahead = AHEAD};
static family plain = {.config = "{\"architectures\":[\"LlamaGen\"]," SIZES "}"};
static tt_stream *stream;
static int32_t second = -1; /* the label of the second group that images have */

static void list_tensors(family *f)
{
    static const struct {
        const char *name;
        int64_t n, k;
    } layer[] = {{"attention_norm.weight", D, 0},   {"attention.wqkv.weight", 3 * D, D},
                 {"attention.wo.weight", D, D},     {"ffn_norm.weight", D, 0},
                 {"feed_forward.w1.weight", FF, D}, {"feed_forward.w3.weight", FF, D},
                 {"feed_forward.w2.weight", D, FF}};
    checkpoint *c = &f->tensors;
    checkpoint_add(c, "tok_embeddings.weight", 2, K, D, 0, 0);
    checkpoint_add(c, "cls_embedding.embedding_table.weight", 2, CLASSES + 1, D, 0, 0);
    if (f->ahead)
        checkpoint_add(c, "spe_tok_embeddings.special_embeddings.weight", 2, SPECIALS, D, 0, 0);
    checkpoint_add(c, "norm.weight", 1, D, 0, 0, 0);
    checkpoint_add(c, "output.weight", 2, K, D, 0, 0);
    for (int i = 0; i < LAYERS; i++)
        for (size_t j = 0; j < sizeof layer / sizeof *layer; j++) {
            char name[80];
            snprintf(name, sizeof name, "layers.%d.%s", i, layer[j].name);
            checkpoint_add(c, name, layer[j].k ? 2 : 1, layer[j].n, layer[j].k, 0, 0);
        }
}

/* --- the network by plain loops: all positions at once, one branch --- */

static const family *under_test;

static const float *tensor(const char *name)
{
    return checkpoint_at(&under_test->tensors, name);
}

static const float *layer_tensor(int i, const char *end)
{
    char name[80];
    snprintf(name, sizeof name, "layers.%d.%s", i, end);
    return tensor(name);
}

static void multiply(double *y, const double *x, const float *w, int n, int k)
{
    for (int j = 0; j < n; j++) {
        y[j] = 0;
        for (int i = 0; i < k; i++)
            y[j] += (double)w[j * k + i] * x[i];
    }
}

static void norm(double *y, const double *x, const float *w)
{
    double square = 0;
    for (int i = 0; i < D; i++)
        square += x[i] * x[i] / D;
    for (int i = 0; i < D; i++)
        y[i] = x[i] / sqrt(square + 1e-5) * w[i];
}

static int level_end(int p)
{
    int end = under_test->ahead;
    if (!end || p < end)
        return p + 1;
    while (end <= p)
        end *= 2;
    return end;
}

/* The sum of the rows of all labels, or "no class". */
static const float *labels(int32_t label)
{
    static float sum[D];
    const float *row = tensor("cls_embedding.embedding_table.weight");
    int32_t more = under_test == &grouped && label >= 0 ? second : -1;
    for (int i = 0; i < D; i++)
        sum[i] = row[(label < 0 ? CLASSES : label) * D + i] +
                 (more < 0 ? 0 : row[(3 + more) * D + i]);
    return sum;
}

/* What position p reads. */
static const float *input(int p, const int32_t *id, int32_t label)
{
    const float *token = tensor("tok_embeddings.weight");
    int begin = level_end(p) / 2, i = p - begin, before = begin == AHEAD ? 1 : begin / 2;
    if (!p)
        return labels(label);
    if (!under_test->ahead || p < AHEAD)
        return token + id[p - 1] * D;
    if (i < before)
        return token + id[begin - before + i] * D;
    int first = begin == AHEAD ? 0 : begin / 2 - 1;
    return tensor("spe_tok_embeddings.special_embeddings.weight") + (first + i - before) * D;
}

static void rotate(double *v, int p)
{
    for (int j = 0; j < HD / 2; j++) {
        double angle = p * pow(10000, -2.0 * j / HD), a = v[2 * j], b = v[2 * j + 1];
        v[2 * j] = a * cos(angle) - b * sin(angle);
        v[2 * j + 1] = b * cos(angle) + a * sin(angle);
    }
}

static void attend(double (*out)[D], double (*qkv)[3 * D], int n)
{
    for (int p = 0; p < n; p++)
        for (int h = 0; h < HEADS; h++) {
            double weight[L], sum = 0;
            int seen = level_end(p);
            for (int q = 0; q < seen; q++) {
                double dot = 0;
                for (int i = h * HD; i < (h + 1) * HD; i++)
                    dot += qkv[p][i] * qkv[q][D + i];
                sum += weight[q] = exp(dot / sqrt(HD));
            }
            for (int i = h * HD; i < (h + 1) * HD; i++) {
                out[p][i] = 0;
                for (int q = 0; q < seen; q++)
                    out[p][i] += weight[q] / sum * qkv[q][2 * D + i];
            }
        }
}

static void layer(double (*x)[D], int at, int n)
{
    double qkv[L][3 * D], seen[L][D], h[D], y[D], gate[FF], up[FF];
    for (int p = 0; p < n; p++) {
        norm(h, x[p], layer_tensor(at, "attention_norm.weight"));
        multiply(qkv[p], h, layer_tensor(at, "attention.wqkv.weight"), 3 * D, D);
        for (int head = 0; head < 2 * HEADS; head++) /* queries, then keys */
            rotate(qkv[p] + head * HD, p);
    }
    attend(seen, qkv, n);
    for (int p = 0; p < n; p++) {
        multiply(y, seen[p], layer_tensor(at, "attention.wo.weight"), D, D);
        for (int i = 0; i < D; i++)
            x[p][i] += y[i];
        norm(h, x[p], layer_tensor(at, "ffn_norm.weight"));
        multiply(gate, h, layer_tensor(at, "feed_forward.w1.weight"), FF, D);
        multiply(up, h, layer_tensor(at, "feed_forward.w3.weight"), FF, D);
        for (int i = 0; i < FF; i++)
            gate[i] *= up[i] / (1 + exp(-gate[i]));
        multiply(y, gate, layer_tensor(at, "feed_forward.w2.weight"), D, FF);
        for (int i = 0; i < D; i++)
            x[p][i] += y[i];
    }
}

/* Logits of positions [0, n), n being the end of a level. */
static void forward(double (*logits)[K], const int32_t *id, int32_t label, int n)
{
    double x[L][D], h[D];
    for (int p = 0; p < n; p++)
        for (int i = 0; i < D; i++)
            x[p][i] = input(p, id, label)[i];
    for (int i = 0; i < LAYERS; i++)
        layer(x, i, n);
    for (int p = 0; p < n; p++) {
        norm(h, x[p], tensor("norm.weight"));
        multiply(logits[p], h, tensor("output.weight"), K, D);
    }
}

/* --- the program's --- */

static int open_family(family *f)
{
    tt_err e = {0};
    list_tensors(f);
    const tt_generator_def *def = tt_generator_find(f->ahead ? "HAR" : "LlamaGen");
    if (checkpoint_open(&f->tensors, NULL, 0.6f, &e) ||
        tt_config_open_text(&f->read, f->config, strlen(f->config), &e) ||
        def->open(&f->model, stream, f->tensors.weights, f->read, TT_WEIGHTS_F32, &e)) {
        printf("%s\n", e.text);
        return -1;
    }
    return 0;
}

static int open_all(void **state)
{
    (void)state;
    tt_err e = {0};
    tt_log_set_level(TT_LOG_WARN);
    return tt_stream_open(&stream, "cpu", 2, &e) || open_family(&har) ||
                   open_family(&grouped) || open_family(&plain)
               ? -1
               : 0;
}

static int close_all(void **state)
{
    (void)state;
    family *all[] = {&har, &grouped, &plain};
    for (int i = 0; i < 3; i++) {
        tt_generator_close(all[i]->model);
        tt_config_close(all[i]->read);
        checkpoint_close(&all[i]->tensors);
    }
    tt_stream_close(stream);
    return 0;
}

static tt_generator_state *image(const family *f, int32_t label)
{
    tt_generator_state *st;
    tt_condition c = {.label = {label, f == &grouped ? second : -1, -1, -1}};
    tt_err e = {0};
    if (tt_generator_begin(&st, f->model, &c, NULL, &e))
        fail_msg("%s", e.text);
    return st;
}

static void ask(asked *a, const family *f, tt_generator_state *st, float cfg_scale)
{
    under_test = f;
    ask_for(a, st, level_end(st->known), cfg_scale);
}

static void run(const family *f, const asked *list, int n)
{
    run_asked(f->model, list, n);
}

static void near(const asked *a, int32_t label)
{
    static double with[L][K], without[L][K];
    const tt_generator_state *st = a->call.state;
    int n = level_end(a->slot[0]);
    forward(with, st->id, label, n);
    forward(without, st->id, -1, n);
    for (int i = 0; i < a->call.wants; i++)
        for (int k = 0; k < K; k++) {
            double c = with[a->slot[i]][k],
                   want = c + a->call.cfg_scale * (c - without[a->slot[i]][k]);
            double have = a->logits[i * K + k];
            if (!(fabs(have - want) < 1e-4 * fmax(1, fabs(want))))
                fail_msg("logit %d of token %d is %g, not %g", k, a->slot[i], have, want);
        }
}

static void follows_plain_loops(const family *f, int32_t label)
{
    tt_generator_state *st = image(f, label);
    asked a;
    for (int t = 0; st->known < L; t++) {
        ask(&a, f, st, 0.5f * (float)(t % 3)); /* guidance comes and goes */
        run(f, &a, 1);
        near(&a, label);
        commit(&a, t);
    }
    tt_generator_drop(st);
}

static void levels_are_those_of_plain_loops(void **state)
{
    (void)state;
    follows_plain_loops(&har, 3);
    follows_plain_loops(&har, -1);
    assert_int_equal(har.model->info.layout.levels, 5); /* 1, 1, 2, 4, 8 */
}

static void tokens_are_those_of_plain_loops(void **state)
{
    (void)state;
    follows_plain_loops(&plain, 0);
}

/* Both groups, one of them, and copies made before the labels were read and after. */
static void labels_of_groups_are_added(void **state)
{
    (void)state;
    second = 1;
    follows_plain_loops(&grouped, 2);
    tt_generator_state *st = image(&grouped, 0), *early, *late;
    asked a;
    tt_err e = {0};
    assert_int_equal(tt_generator_fork(&early, st, &e), TT_OK);
    ask(&a, &grouped, st, 1);
    run(&grouped, &a, 1);
    near(&a, 0);
    commit(&a, 0);
    assert_int_equal(tt_generator_fork(&late, st, &e), TT_OK);
    tt_generator_drop(st);
    tt_generator_state *each[] = {early, late};
    for (int i = 0; i < 2; i++) {
        ask(&a, &grouped, each[i], 1);
        run(&grouped, &a, 1);
        near(&a, 0);
        tt_generator_drop(each[i]);
    }
    second = -1;
    follows_plain_loops(&grouped, 1);
    follows_plain_loops(&grouped, -1);
}

/* Images at different levels in one step: the bits they have alone. */
static void bits_do_not_depend_on(const family *f, int32_t classes)
{
    enum { N = 5 };
    tt_generator_state *alone[N], *mixed[N];
    static asked one[N], all[N], other;
    for (int i = 0; i < N; i++) {
        alone[i] = image(f, i % classes);
        mixed[i] = image(f, i % classes);
        for (int t = 0; t < i; t++) {
            ask(&other, f, alone[i], 1);
            run(f, &other, 1);
            commit(&other, 0);
            ask(&other, f, mixed[i], 1);
            run(f, &other, 1);
            commit(&other, 0);
        }
    }
    for (int i = 0; i < N; i++) {
        ask(&one[i], f, alone[i], 0.5f * (float)i);
        run(f, &one[i], 1);
        ask(&all[i], f, mixed[i], 0.5f * (float)i);
    }
    run(f, all, N);
    for (int i = 0; i < N; i++) {
        assert_memory_equal(one[i].logits, all[i].logits, sizeof one[i].logits);
        tt_generator_drop(alone[i]);
        tt_generator_drop(mixed[i]);
    }
}

static void bits_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    bits_do_not_depend_on(&har, CLASSES);
    second = 0;
    bits_do_not_depend_on(&grouped, 3);
    second = -1;
}

static void a_fork_goes_its_own_way(void **state)
{
    (void)state;
    tt_generator_state *st = image(&har, 1), *branch;
    asked a, b;
    tt_err e = {0};
    for (int t = 0; t < 3; t++) {
        ask(&a, &har, st, 1);
        run(&har, &a, 1);
        commit(&a, 0);
    }
    assert_int_equal(tt_generator_fork(&branch, st, &e), TT_OK);
    ask(&b, &har, branch, 1);
    run(&har, &b, 1);
    commit(&b, 4);
    ask(&b, &har, branch, 1); /* the branch is a level ahead, with other tokens */
    run(&har, &b, 1);
    near(&b, 1);
    for (; st->known < L; commit(&a, 0)) {
        ask(&a, &har, st, 1);
        run(&har, &a, 1);
        near(&a, 1);
    }
    tt_generator_drop(st);
    tt_generator_drop(branch);
}

static void refused(const family *f, const char *without, const char *config, const char *named)
{
    checkpoint part = {0};
    family copy = {.ahead = f->ahead};
    tt_config *c;
    tt_generator *g;
    tt_err e = {0};
    list_tensors(&copy);
    part = copy.tensors;
    assert_int_equal(checkpoint_open(&part, without, 0.6f, &e), TT_OK);
    assert_int_equal(tt_config_open_text(&c, config, strlen(config), &e), TT_OK);
    assert_int_not_equal(f->model->def->open(&g, stream, part.weights, c, TT_WEIGHTS_F32, &e),
                         TT_OK);
    assert_null(g);
    if (!strstr(e.text, named))
        fail_msg("'%s' does not name %s", e.text, named);
    tt_config_close(c);
    checkpoint_close(&part);
}

static void what_is_wrong_is_named(void **state)
{
    (void)state;
    refused(&har, "layers.1.ffn_norm.weight", har.config, "layers.1.ffn_norm.weight");
    refused(&har, "output.weight", har.config, "output.weight");
    refused(&har, "cls_embedding.embedding_table.weight", har.config, "cls_embedding");
    refused(&plain, NULL, "{\"architectures\":[\"LlamaGen\"],\"label_groups\":[3,3]," SIZES "}",
            "label_groups");
    refused(&har, NULL, "{\"architectures\":[\"HAR\"]," SIZES ",\"ar_token_num\":2}",
            "ar_token_num");
    refused(&har, NULL,
            "{\"architectures\":[\"HAR\"]," SIZES ",\"ar_token_num\":3,\"spe_token_num\":7}",
            "ar_token_num");
    refused(&plain, NULL,
            "{\"architectures\":[\"LlamaGen\"],\"model_type\":\"t2i\",\"dim\":12,"
            "\"n_layer\":2,\"n_head\":2,\"vocab_size\":11,\"block_size\":16}",
            "model_type");
    tt_generator_state *st;
    tt_err e = {0};
    assert_int_equal(tt_generator_begin(&st, har.model,
                                        &(tt_condition){.label = {CLASSES, -1, -1, -1}}, NULL, &e),
                     TT_EINVAL);
    assert_null(st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_are_those_of_plain_loops),
        cmocka_unit_test(tokens_are_those_of_plain_loops),
        cmocka_unit_test(labels_of_groups_are_added),
        cmocka_unit_test(bits_do_not_depend_on_the_batch),
        cmocka_unit_test(a_fork_goes_its_own_way),
        cmocka_unit_test(what_is_wrong_is_named),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
