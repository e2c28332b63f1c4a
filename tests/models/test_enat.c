/* ENAT against plain loops over the same tensors, and what its states promise.
 *
 * What can go wrong: context and own keys exchanged, one of the eight modulations in another's
 * place, an old token encoded again, features of the wrong branch or image, a branch skipped that
 * a later step needs, bits that change with the batch, a fork that shares memory, a slot that keeps
 * something of the image before, sizes that are no multiple of anything. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/base/log.h"
#include "models/generator.h"
#include "tests/models/checkpoint.h"

enum { D = 21, HEADS = 3, L = 9, K = 13, CLASSES = 7, ENC = 2, DEC = 2, FF = 84 };

static const char config_text[] =
    "{\"architectures\":[\"ENAT\"],\"input_size\":3,\"hidden_size\":21,\"num_heads\":3,"
    "\"enc_dec\":[2,2],\"mlp_ratio\":4,\"codebook_size\":13,\"num_classes\":7,"
    "\"label_groups\":[4,3]}";

static void add_linear(checkpoint *c, const char *name, int64_t n, int64_t k)
{
    char text[80];
    snprintf(text, sizeof text, "%s.weight", name);
    checkpoint_add(c, text, 2, n, k, 0, 0);
    snprintf(text, sizeof text, "%s.bias", name);
    checkpoint_add(c, text, 1, n, 0, 0, 0);
}
static void add_norm(checkpoint *c, const char *name)
{
    char text[80];
    snprintf(text, sizeof text, "%s.weight", name);
    checkpoint_add(c, text, 1, D, 0, 0, 0);
    snprintf(text, sizeof text, "%s.bias", name);
    checkpoint_add(c, text, 1, D, 0, 0, 0);
}

static void list_tensors(checkpoint *c)
{
    static const struct {
        const char *name;
        int64_t n, k;
    } block[] = {{"attn.q", D, D},     {"attn.kv.A", 2 * D, D}, {"attn.kv.B", 2 * D, D},
                 {"attn.proj", D, D},  {"mlp.fc1", FF, D},      {"mlp.fc2", D, FF},
                 {"adaLN_modulation.1", 8 * D, D}};
    checkpoint_add(c, "x_embedder.word_embeddings.weight", 2, K + 1, D, 0, 0);
    checkpoint_add(c, "x_embedder.position_embeddings.weight", 2, L, D, 0, 0);
    checkpoint_add(c, "y_embedder.embedding_table.weight", 2, CLASSES + 1, D, 0, 0);
    checkpoint_add(c, "mlm_layer.bias", 3, 1, 1, K + 1, 0);
    add_norm(c, "x_embedder.LayerNorm");
    add_norm(c, "prev_proj.norm");
    add_norm(c, "norm");
    add_norm(c, "mlm_layer.ln");
    add_linear(c, "prev_proj.mlp.fc1", FF, D);
    add_linear(c, "prev_proj.mlp.fc2", D, FF);
    add_linear(c, "mlm_layer.fc", D, D);
    for (int i = 0; i < ENC + DEC; i++)
        for (size_t j = 0; j < sizeof block / sizeof *block; j++) {
            char text[60];
            snprintf(text, sizeof text, "blocks.%d.%s", i, block[j].name);
            add_linear(c, text, block[j].n, block[j].k);
        }
}

/* --- the network by plain loops, one image, one branch --- */

static const checkpoint *tensors;

static const float *tensor(const char *name, const char *end)
{
    char text[100];
    snprintf(text, sizeof text, "%s%s", name, end);
    return checkpoint_at(tensors, text);
}

static void linear(double *y, const double *x, const char *name, int n, int k)
{
    const float *w = tensor(name, ".weight"), *b = tensor(name, ".bias");
    for (int j = 0; j < n; j++) {
        y[j] = b[j];
        for (int i = 0; i < k; i++)
            y[j] += (double)w[j * k + i] * x[i];
    }
}

static void layer_norm(double *y, const double *x, const char *name, double eps)
{
    double mean = 0, var = 0;
    for (int i = 0; i < D; i++)
        mean += x[i] / D;
    for (int i = 0; i < D; i++)
        var += (x[i] - mean) * (x[i] - mean) / D;
    for (int i = 0; i < D; i++) {
        double v = (x[i] - mean) / sqrt(var + eps);
        y[i] = name ? v * tensor(name, ".weight")[i] + tensor(name, ".bias")[i] : v;
    }
}

static double gelu(double v)
{
    return 0.5 * v * (1 + tanh(sqrt(2 / 3.14159265358979) * (v + 0.044715 * v * v * v)));
}

static void mlp(double *y, const double *x, const char *up, const char *down)
{
    double h[FF];
    linear(h, x, up, FF, D);
    for (int i = 0; i < FF; i++)
        h[i] = gelu(h[i]);
    linear(y, h, down, D, FF);
}

static const char *block_name(int i, const char *end)
{
    static char text[4][60];
    static int next;
    char *t = text[next++ % 4];
    snprintf(t, 60, "blocks.%d.%s", i, end);
    return t;
}

static void modulated(double *y, const double *x, const double *shift)
{
    layer_norm(y, x, NULL, 1e-6);
    for (int i = 0; i < D; i++)
        y[i] = y[i] * (1 + shift[D + i]) + shift[i];
}

/* x: n rows updated in place; context: m rows. */
static void block(int b, double (*x)[D], int n, double (*context)[D], int m, const double *c)
{
    double s[8 * D], kv[2 * L][2 * D], q[L][D], h[D], y[D], score[2 * L];
    linear(s, c, block_name(b, "adaLN_modulation.1"), 8 * D, D);
    for (int i = 0; i < m; i++) {
        modulated(h, context[i], s + 2 * D);
        linear(kv[i], h, block_name(b, "attn.kv.A"), 2 * D, D);
    }
    for (int i = 0; i < n; i++) {
        modulated(h, x[i], s);
        linear(kv[m + i], h, block_name(b, "attn.kv.B"), 2 * D, D);
        linear(q[i], h, block_name(b, "attn.q"), D, D);
    }
    for (int i = 0; i < n; i++) {
        for (int a = 0; a < HEADS; a++) {
            double sum = 0, *out = h + a * (D / HEADS);
            for (int k = 0; k < m + n; k++) {
                score[k] = 0;
                for (int j = 0; j < D / HEADS; j++)
                    score[k] += q[i][a * (D / HEADS) + j] * kv[k][a * (D / HEADS) + j];
                sum += score[k] = exp(score[k] / sqrt(D / HEADS));
            }
            for (int j = 0; j < D / HEADS; j++) {
                out[j] = 0;
                for (int k = 0; k < m + n; k++)
                    out[j] += score[k] / sum * kv[k][D + a * (D / HEADS) + j];
            }
        }
        linear(y, h, block_name(b, "attn.proj"), D, D);
        for (int j = 0; j < D; j++)
            x[i][j] += s[4 * D + j] * y[j];
        modulated(h, x[i], s + 5 * D);
        mlp(y, h, block_name(b, "mlp.fc1"), block_name(b, "mlp.fc2"));
        for (int j = 0; j < D; j++)
            x[i][j] += s[7 * D + j] * y[j];
    }
}

typedef struct {
    double feature[L][D];
    bool kept[L];
} memory; /* of one branch between steps */

static void condition(double *c, const tt_condition *label)
{
    const float *table = checkpoint_at(tensors, "y_embedder.embedding_table.weight");
    bool any = false;
    for (int j = 0; j < D; j++)
        c[j] = 0;
    for (int g = 0; label && g < 2; g++)
        for (int j = 0; j < D && label->label[g] >= 0; j++, any = true)
            c[j] += table[(label->label[g] + (g ? 4 : 0)) * D + j];
    for (int j = 0; j < D; j++) {
        c[j] = any ? c[j] : table[CLASSES * D + j];
        c[j] /= 1 + exp(-c[j]);
    }
}

/* logits: L x K, of hidden tokens. label NULL: no class. */
static void forward(double (*logits)[K], memory *past, const int32_t *id, const tt_condition *label)
{
    double c[D], x[L][D], old[L][D], h[D], y[D];
    int place[3][L], n[3] = {0, 0, 0}; /* old, fresh, hidden */
    double row[3][L][D];
    const float *word = checkpoint_at(tensors, "x_embedder.word_embeddings.weight");
    const float *position = checkpoint_at(tensors, "x_embedder.position_embeddings.weight");
    condition(c, label);
    for (int i = 0; i < L; i++) {
        int kind = id[i] == K ? 2 : past->kept[i] ? 0 : 1;
        for (int j = 0; j < D; j++)
            h[j] = (double)word[id[i] * D + j] + position[i * D + j];
        layer_norm(x[i], h, "x_embedder.LayerNorm", 1e-6);
        if (kind == 0) {
            layer_norm(h, past->feature[i], "prev_proj.norm", 1e-6);
            mlp(y, h, "prev_proj.mlp.fc1", "prev_proj.mlp.fc2");
            for (int j = 0; j < D; j++)
                old[i][j] = past->feature[i][j] + y[j];
        }
        memcpy(row[kind][n[kind]], kind ? x[i] : old[i], sizeof x[i]);
        place[kind][n[kind]++] = i;
    }
    for (int b = 0; b < ENC && n[1]; b++)
        block(b, row[1], n[1], row[0], n[0], c);
    memcpy(row[0] + n[0], row[1], (size_t)n[1] * sizeof row[0][0]); /* all that is known */
    for (int i = 0; i < n[1]; i++)
        place[0][n[0] + i] = place[1][i];
    for (int b = ENC; b < ENC + DEC; b++)
        block(b, row[2], n[2], row[0], n[0] + n[1], c);
    for (int i = 0; i < n[0] + n[1]; i++) {
        memcpy(past->feature[place[0][i]], row[0][i], sizeof row[0][0]);
        past->kept[place[0][i]] = true;
    }
    const float *bias = checkpoint_at(tensors, "mlm_layer.bias");
    for (int i = 0; i < n[2]; i++) {
        layer_norm(h, row[2][i], "norm", 1e-5);
        linear(y, h, "mlm_layer.fc", D, D);
        for (int j = 0; j < D; j++)
            y[j] *= 0.5 * (1 + erf(y[j] / sqrt(2)));
        layer_norm(h, y, "mlm_layer.ln", 1e-5);
        for (int k = 0; k < K; k++) {
            double *l = &logits[place[2][i]][k];
            *l = bias[k];
            for (int j = 0; j < D; j++)
                *l += h[j] * word[k * D + j];
        }
    }
}

/* --- the model under test --- */

static checkpoint all;
static tt_stream *stream;
static tt_config *config;
static tt_generator *model;

static int open_model(void **state)
{
    (void)state;
    tt_err e = {0};
    tt_log_set_level(TT_LOG_WARN);
    list_tensors(&all);
    tensors = &all;
    const tt_generator_def *def = tt_generator_find("ENAT");
    if (checkpoint_open(&all, NULL, 0.4f, &e) || tt_stream_open(&stream, "cpu", 2, &e) ||
        tt_config_open_text(&config, config_text, strlen(config_text), &e) ||
        def->open(&model, stream, all.weights, config, TT_WEIGHTS_F32, &e)) {
        printf("%s\n", e.text);
        return -1;
    }
    return 0;
}
static int close_model(void **state)
{
    (void)state;
    tt_generator_close(model);
    tt_config_close(config);
    tt_stream_close(stream);
    checkpoint_close(&all);
    return 0;
}

static tt_generator_state *image(int32_t first, int32_t second, const int32_t *id)
{
    tt_generator_state *st;
    tt_condition c = {.label = {first, second, -1, -1}};
    tt_err e = {0};
    if (tt_generator_begin(&st, model, &c, id, &e))
        fail_msg("%s", e.text);
    return st;
}

/* A step's results of one image: logits of all hidden tokens. */
typedef struct {
    int32_t slot[L];
    tt_draw draw[L];
    tt_row_stats stats[L];
    float logits[L * K];
    tt_generator_call call;
} asked;

static void ask(asked *a, tt_generator_state *st, float cfg_scale, bool guided, bool reuse)
{
    *a = (asked){0};
    a->call = (tt_generator_call){.state = st, .cfg_scale = cfg_scale, .guided = guided,
                                  .reuse = reuse, .slot = a->slot, .draw = a->draw,
                                  .stats = a->stats, .logits = a->logits};
    for (int32_t i = 0; i < L; i++)
        if (st->id[i] == K)
            a->slot[a->call.wants++] = i;
    for (int i = 0; i < L; i++)
        a->draw[i] = (tt_draw){.top_p = 1, .target = -1};
}

static void run(const asked *list, int n)
{
    tt_generator_call call[8];
    tt_err e = {0};
    for (int i = 0; i < n; i++)
        call[i] = list[i].call;
    if (tt_generator_step(model, call, n, &e))
        fail_msg("%s", e.text);
}

static void commit(tt_generator_state *st, const int32_t *slots, int32_t n)
{
    tt_err e = {0};
    for (int32_t i = 0; i < n; i++) {
        int32_t id = (3 * slots[i] + 1) % K;
        if (tt_generator_commit(st, &slots[i], &id, 1, &e))
            fail_msg("%s", e.text);
    }
}

static void near(const asked *a, double (*want)[K], const char *what)
{
    for (int i = 0; i < a->call.wants; i++)
        for (int k = 0; k < K; k++) {
            double w = want[a->slot[i]][k], h = a->logits[i * K + k];
            if (!(fabs(h - w) < 2e-5 * fmax(1, fabs(w))))
                fail_msg("%s: logit %d of token %d is %g, not %g", what, k, a->slot[i], h, w);
        }
}

static const int32_t revealed[4][3] = {{-1}, {4, 7, -1}, {0, -1}, {1, 5, 8}};

static int count(const int32_t *list)
{
    int n = 0;
    while (n < 3 && list[n] >= 0)
        n++;
    return n;
}

/* Four steps: nothing known, two tokens, one more, three more; guidance from the second on. */
static void follows_plain_loops(int32_t first, int32_t second, bool reuse)
{
    tt_generator_state *st = image(first, second, NULL);
    tt_condition label = {.label = {first, second, -1, -1}};
    memory cond = {0}, uncond = {0};
    asked a;
    for (int t = 0; t < 4; t++) {
        double with[L][K], without[L][K];
        commit(st, revealed[t], count(revealed[t]));
        if (!reuse)
            memset(cond.kept, 0, sizeof cond.kept), memset(uncond.kept, 0, sizeof uncond.kept);
        forward(with, &cond, st->id, &label);
        forward(without, &uncond, st->id, NULL);
        float s = 0.75f * (float)t;
        for (int i = 0; i < L; i++)
            for (int k = 0; k < K; k++)
                with[i][k] += s * (with[i][k] - without[i][k]);
        ask(&a, st, s, true, reuse);
        run(&a, 1);
        near(&a, with, reuse ? "reuse" : "no reuse");
    }
    tt_generator_drop(st);
}

static void logits_are_those_of_plain_loops(void **state)
{
    (void)state;
    follows_plain_loops(2, -1, true);
    follows_plain_loops(3, 1, true);
    follows_plain_loops(-1, 2, true);
    follows_plain_loops(0, 0, false);
}

/* Known at the beginning, and the first guided step comes late: the second branch must have been
 * kept up to date. */
static void given_tokens_and_late_guidance(void **state)
{
    (void)state;
    int32_t id[L] = {K, 2, K, K, 5, K, K, K, 12};
    tt_generator_state *st = image(1, -1, id);
    tt_condition label = {.label = {1, -1, -1, -1}};
    memory cond = {0}, uncond = {0};
    double with[L][K], without[L][K];
    asked a;
    for (int t = 0; t < 3; t++) {
        if (t)
            commit(st, (int32_t[]){t == 1 ? 0 : 3}, 1);
        float s = t == 2 ? 2.0f : 0;
        forward(with, &cond, st->id, &label);
        forward(without, &uncond, st->id, NULL);
        for (int i = 0; i < L; i++)
            for (int k = 0; k < K; k++)
                with[i][k] += s * (with[i][k] - without[i][k]);
        ask(&a, st, s, true, true);
        run(&a, 1);
        near(&a, with, "given");
    }
    tt_generator_drop(st);
}

/* Images at different steps, with and without guidance, in one step: the bits they have alone. */
static void bits_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    enum { N = 6 }; /* more than there is room for at first */
    tt_generator_state *alone[N], *mixed[N];
    static asked one[N], all_of[N];
    for (int i = 0; i < N; i++) {
        alone[i] = image(i % 4, -1, NULL);
        mixed[i] = image(i % 4, -1, NULL);
        for (int t = 0; t <= i % 4; t++) { /* so far along, one by one */
            commit(alone[i], revealed[t], count(revealed[t]));
            commit(mixed[i], revealed[t], count(revealed[t]));
            if (t == i % 4)
                break;
            ask(&one[i], alone[i], (float)t, i != 2, i != 5);
            run(&one[i], 1);
            ask(&one[i], mixed[i], (float)t, i != 2, i != 5);
            run(&one[i], 1);
        }
    }
    for (int i = 0; i < N; i++) {
        ask(&one[i], alone[i], i == 2 ? 0 : 1.5f, i != 2, i != 5);
        run(&one[i], 1);
        ask(&all_of[i], mixed[i], i == 2 ? 0 : 1.5f, i != 2, i != 5);
    }
    run(all_of, N);
    for (int i = 0; i < N; i++) {
        assert_memory_equal(one[i].logits, all_of[i].logits, sizeof one[i].logits);
        assert_memory_equal(one[i].stats, all_of[i].stats, sizeof one[i].stats);
        tt_generator_drop(alone[i]);
        tt_generator_drop(mixed[i]);
    }
}

static void a_fork_goes_its_own_way(void **state)
{
    (void)state;
    tt_generator_state *st = image(2, -1, NULL), *fork, *other;
    asked a, b;
    tt_err e = {0};
    ask(&a, st, 0, true, true);
    run(&a, 1);
    commit(st, revealed[1], 2);
    ask(&a, st, 1, true, true);
    run(&a, 1);
    assert_int_equal(tt_generator_fork(&fork, st, &e), TT_OK);
    commit(fork, revealed[2], 1);
    ask(&b, fork, 1, true, true);
    run(&b, 1); /* must leave st alone */
    commit(st, revealed[3], 3);
    ask(&a, st, 1, true, true);
    run(&a, 1);
    /* The same path without a fork in between. */
    other = image(2, -1, NULL);
    commit(other, revealed[1], 2);
    ask(&b, other, 1, true, true);
    run(&b, 1);
    commit(other, revealed[3], 3);
    ask(&b, other, 1, true, true);
    run(&b, 1);
    assert_memory_equal(a.logits, b.logits, sizeof a.logits);
    tt_generator_drop(st);
    tt_generator_drop(fork);
    tt_generator_drop(other);
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    tt_err e = {0};
    tt_generator_state *st;
    tt_condition wrong = {.label = {4, -1, -1, -1}}, third = {.label = {0, 0, 0, -1}};
    int32_t id[L] = {K, 1, K, K, K, K, K, K, K + 1}, slot = 0, token = K;
    assert_int_equal(tt_generator_begin(&st, model, &wrong, NULL, &e), TT_EINVAL);
    assert_int_equal(tt_generator_begin(&st, model, &third, NULL, &e), TT_EINVAL);
    wrong.label[0] = 0;
    assert_int_equal(tt_generator_begin(&st, model, &wrong, id, &e), TT_EINVAL);
    id[8] = K;
    st = image(0, -1, id);
    assert_int_equal(st->known, 1);
    assert_int_equal(tt_generator_commit(st, &slot, &token, 1, &e), TT_EINVAL);
    slot = 1, token = 3;
    assert_int_equal(tt_generator_commit(st, &slot, &token, 1, &e), TT_EINVAL);
    asked a;
    ask(&a, st, 0, false, true);
    a.slot[0] = 1;
    assert_int_equal(tt_generator_step(model, &a.call, 1, &e), TT_EINVAL);
    assert_int_equal(tt_generator_step(model, NULL, 0, &e), TT_OK);
    tt_generator_drop(st);
    assert_true(tt_generator_step_bytes(model, 8) > tt_generator_step_bytes(model, 1));
}

/* A tensor that is missing or a config that cannot be is named. */
static void refused(const char *text, const char *without, tt_status want, const char *word)
{
    static checkpoint part;
    tt_config *c = NULL;
    tt_generator *g = NULL;
    tt_err e = {0};
    memset(&part, 0, sizeof part);
    list_tensors(&part);
    assert_int_equal(checkpoint_open(&part, without, 0.4f, &e), TT_OK);
    assert_int_equal(tt_config_open_text(&c, text, strlen(text), &e), TT_OK);
    assert_int_equal(tt_generator_find("enat")->open(&g, stream, part.weights, c, TT_WEIGHTS_F32,
                                                     &e), want);
    assert_null(g);
    if (!strstr(e.text, word))
        fail_msg("'%s' does not name %s", e.text, word);
    tt_config_close(c);
    checkpoint_close(&part);
}

static void broken_folders_are_refused_by_name(void **state)
{
    (void)state;
    static const char shape[] = "{\"input_size\":%s,\"hidden_size\":%s,\"num_heads\":%s,"
                                "\"enc_dec\":%s,\"codebook_size\":13,\"num_classes\":7,"
                                "\"label_groups\":%s%s}";
    static const struct {
        const char *side, *width, *heads, *blocks, *groups, *more, *word;
        tt_status status;
    } bad[] = {
        {"3", "21", "4", "[2,2]", "[4,3]", "", "num_heads", TT_EFORMAT},
        {"3", "21", "3", "[2]", "[4,3]", "", "enc_dec", TT_EFORMAT},
        {"3", "21", "3", "2", "[4,3]", "", "enc_dec", TT_EFORMAT},
        {"3", "21", "3", "[2,2]", "[4,4]", "", "label_groups", TT_EFORMAT},
        {"3", "21", "3", "[2,2]", "[1,1,1,1,1]", "", "label_groups", TT_EFORMAT},
        {"4", "21", "3", "[2,2]", "[4,3]", "", "position_embeddings", TT_EFORMAT},
        {"3", "24", "3", "[2,2]", "[4,3]", "", "word_embeddings", TT_EFORMAT},
        {"3", "21", "3", "[2,3]", "[4,3]", "", "blocks.4", TT_EFORMAT},
        {"1000000", "21", "3", "[2,2]", "[4,3]", "", "input_size", TT_EFORMAT},
        {"3", "21", "3", "[2,2]", "[4,3]", ",\"mask_token_id\":5", "mask_token_id", TT_EUNSUP},
    };
    static const char *const missing[] = {"blocks.3.attn.kv.A.bias", "mlm_layer.bias",
                                          "prev_proj.norm.weight", "blocks.0.mlp.fc2.weight",
                                          "y_embedder.embedding_table.weight", NULL};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[300];
        snprintf(text, sizeof text, shape, bad[i].side, bad[i].width, bad[i].heads, bad[i].blocks,
                 bad[i].groups, bad[i].more);
        refused(text, NULL, bad[i].status, bad[i].word);
    }
    for (const char *const *name = missing; *name; name++)
        refused(config_text, *name, TT_EFORMAT, *name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_those_of_plain_loops),
        cmocka_unit_test(given_tokens_and_late_guidance),
        cmocka_unit_test(bits_do_not_depend_on_the_batch),
        cmocka_unit_test(a_fork_goes_its_own_way),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(broken_folders_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
