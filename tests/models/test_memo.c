/* Rows kept between passes: hidden ones, against which distributions are compared, and expected
 * embeddings, which are fed again.
 *
 * What can go wrong: the wrong column's row, a first time that looks like rest, wants of several
 * sequences that get mixed up, an embedding mixed into a row that asked for none, a pass that reads
 * what was never kept. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/base/log.h"
#include "models/memo.h"

#define FOLDER "tests/golden/masked-diffusion/llada"

enum { N = 12, VOCAB = 320, WIDTH = 64, LAYERS = 3 };

typedef struct {
    tt_stream *stream;
    tt_model *model;
    tt_weights *weights;
    tt_config *config;
} world;

static int setup(void **state)
{
    static world w;
    tt_err e;
    tt_log_set_level(TT_LOG_WARN);
    tt_status s = tt_stream_open(&w.stream, "plain", 2, &e);
    if (!s)
        s = tt_model_open(&w.model, &w.weights, &w.config, w.stream, FOLDER, TT_WEIGHTS_F32, NULL,
                          NULL, &e);
    if (s)
        print_error("%s\n", e.text);
    *state = &w;
    return s ? -1 : 0;
}

static int teardown(void **state)
{
    world *w = *state;
    tt_model_close(w->model);
    tt_weights_close(w->weights);
    tt_config_close(w->config);
    tt_stream_close(w->stream);
    return 0;
}

/* Two sequences of N columns; every row is wanted. */
typedef struct {
    int32_t id[2 * N], column[2 * N];
    tt_pass_seq seq[2];
    tt_want want[2 * N];
    tt_row_stats stats[2 * N];
    float kl[2 * N], mix[2 * N];
    float logits[2 * N * VOCAB], hidden[(LAYERS + 1) * 2 * N * WIDTH];
    tt_pass pass;
} example;

static void make_pass(example *x, tt_memo *const memo[2], int shift)
{
    memset(x, 0, sizeof *x);
    for (int i = 0; i < 2 * N; i++) {
        x->id[i] = (i * 20 + shift) % 290;
        x->column[i] = i % N;
        x->want[i] = (tt_want){.row = i, .uncond = -1, .draw = {.top_p = 1, .target = -1},
                               .memo = memo[i / N], .memo_column = i % N};
    }
    for (int s = 0; s < 2; s++)
        x->seq[s] = (tt_pass_seq){.row = s * N, .rows = N, .see_end = N, .memo = memo[s]};
    x->pass = (tt_pass){.rows = 2 * N, .id = x->id, .position = x->column, .column = x->column,
                        .seqs = 2, .seq = x->seq, .wants = 2 * N, .want = x->want,
                        .stats = x->stats, .kl = x->kl};
}

static void run(const world *w, example *x)
{
    tt_err e = {0};
    if (tt_model_run(w->model, &x->pass, &e))
        fail_msg("%s", e.text);
}

static void open_memos(const world *w, tt_memo *memo[2], tt_memo_kind a, tt_memo_kind b)
{
    tt_err e;
    assert_int_equal(tt_memo_open(&memo[0], w->model, a, N, &e), TT_OK);
    assert_int_equal(tt_memo_open(&memo[1], w->model, b, N, &e), TT_OK);
}

/* p of a row in double. */
static void softmax_of(double *p, const float *logits)
{
    double max = -INFINITY, sum = 0;
    for (int i = 0; i < VOCAB; i++)
        max = logits[i] > max ? logits[i] : max;
    for (int i = 0; i < VOCAB; i++)
        sum += p[i] = exp(logits[i] - max);
    for (int i = 0; i < VOCAB; i++)
        p[i] /= sum;
}

static void movement_is_measured_from_the_last_pass(void **state)
{
    const world *w = *state;
    static example first, again, other;
    static double p[VOCAB], q[VOCAB];
    tt_memo *memo[2];
    open_memos(w, memo, TT_MEMO_HIDDEN, TT_MEMO_HIDDEN);
    make_pass(&first, memo, 0);
    first.pass.logits = first.logits;
    run(w, &first);
    make_pass(&again, memo, 0);
    run(w, &again);
    make_pass(&other, memo, 3);
    other.pass.logits = other.logits;
    /* Only some columns, in another order than they lie: each finds its own row. */
    for (int i = 0; i < N; i++) {
        tt_want t = other.want[i];
        other.want[i] = other.want[2 * N - 1 - i];
        other.want[2 * N - 1 - i] = t;
    }
    run(w, &other);
    for (int i = 0; i < 2 * N; i++) {
        assert_true(isinf(first.kl[i]));
        assert_true(again.kl[i] == 0);
        double want = 0;
        softmax_of(p, other.logits + i * VOCAB);
        softmax_of(q, first.logits + (2 * N - 1 - i) * VOCAB);
        for (int v = 0; v < VOCAB; v++)
            want += p[v] * (log(p[v] + 1e-12) - log(q[v] + 1e-12));
        assert_true(want > 0.01);
        assert_float_equal(other.kl[i], want, 1e-3 * (1 + want));
    }
    tt_memo_close(memo[0]);
    tt_memo_close(memo[1]);
}

/* Only the first sequence keeps expected embeddings, only some of its rows are fed them. */
static void expected_embeddings_are_fed_where_asked_for(void **state)
{
    const world *w = *state;
    static example first, plain, mixed;
    static double p[VOCAB];
    tt_memo *memo[2], *none[2] = {0};
    tt_tensor table;
    tt_err e;
    open_memos(w, memo, TT_MEMO_MEAN, TT_MEMO_HIDDEN);
    make_pass(&first, memo, 0);
    first.pass.logits = first.logits;
    run(w, &first);
    make_pass(&plain, none, 5);
    plain.pass.hidden = plain.hidden;
    run(w, &plain);
    make_pass(&mixed, none, 5);
    mixed.seq[0].memo = memo[0];
    mixed.pass.hidden = mixed.hidden;
    mixed.pass.mix = mixed.mix;
    for (int i = 0; i < N; i++)
        mixed.mix[i] = i % 3 ? 0.1f * (float)i : 0;
    run(w, &mixed);
    const int64_t dims[] = {VOCAB, WIDTH};
    assert_int_equal(tt_weights_get(w->weights, "model.transformer.wte.weight", 2, dims, &table,
                                    &e), TT_OK);
    for (int i = 0; i < 2 * N; i++)
        for (int c = 0; c < WIDTH; c++) {
            double want = plain.hidden[i * WIDTH + c];
            softmax_of(p, first.logits + i * VOCAB);
            for (int v = 0; v < VOCAB && mixed.mix[i] != 0; v++) {
                float embedding;
                assert_int_equal(tt_to_f32(&embedding, &table, v * WIDTH + c, 1, &e), TT_OK);
                want += (double)mixed.mix[i] * p[v] * embedding;
            }
            assert_float_equal(mixed.hidden[i * WIDTH + c], want, 1e-5);
        }
    tt_memo_close(memo[0]);
    tt_memo_close(memo[1]);
}

static void what_was_never_kept_is_refused(void **state)
{
    const world *w = *state;
    static example x;
    tt_memo *memo[2], *none[2] = {0};
    tt_err e;
    open_memos(w, memo, TT_MEMO_MEAN, TT_MEMO_HIDDEN);
#define REFUSED(memos, change)                                     \
    make_pass(&x, memos, 0);                                       \
    change;                                                        \
    assert_int_equal(tt_model_run(w->model, &x.pass, &e), TT_EINVAL)
    REFUSED(memo, (x.pass.mix = x.mix, x.mix[2] = 1));     /* nothing kept yet */
    REFUSED(none, (x.pass.mix = x.mix, x.mix[2] = 1));     /* nowhere to keep it */
    REFUSED(memo, (x.pass.mix = x.mix, x.mix[N + 2] = 1)); /* another kind of row is kept */
    REFUSED(memo, x.pass.kl = NULL);
    REFUSED(memo, x.want[3].memo_column = N);
    REFUSED(memo, x.want[3].memo_column = -1);
    REFUSED(none, (x.seq[1].hole = 1, x.seq[1].see = TT_SEE_CAUSAL));
    REFUSED(none, x.seq[1].hole = -1);
#undef REFUSED
    make_pass(&x, memo, 0);
    w->model->info.kinds &= ~(uint32_t)TT_KIND_MEMO;
    assert_int_equal(tt_model_run(w->model, &x.pass, &e), TT_EUNSUP);
    w->model->info.kinds |= TT_KIND_MEMO;
    tt_memo_close(memo[0]);
    tt_memo_close(memo[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(movement_is_measured_from_the_last_pass),
        cmocka_unit_test(expected_embeddings_are_fed_where_asked_for),
        cmocka_unit_test(what_was_never_kept_is_refused),
    };
    return cmocka_run_group_tests_name("rows between passes", tests, setup, teardown);
}
