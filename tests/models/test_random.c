/* What can go wrong: numbers that depend on what was asked before, a shape asked for twice in two
 * ways, sizes that nobody knows or memory cannot hold, an 8B shape that takes 16 GB. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "models/kv.h"
#include "models/random.h"

static float at(const tt_tensor *t, int64_t i)
{
    float v;
    assert_int_equal(tt_to_f32(&v, t, i, 1, NULL), TT_OK);
    return v;
}

static tt_weights *open_random(void)
{
    tt_weights *w;
    tt_err e;
    assert_int_equal(tt_weights_open_random(&w, &e), TT_OK);
    return w;
}

static tt_tensor get(const tt_weights *w, const char *name, int rank, int64_t n, int64_t k)
{
    tt_tensor t;
    tt_err e = {0};
    if (tt_weights_get(w, name, rank, (int64_t[]){n, k}, &t, &e))
        fail_msg("%s", e.text);
    return t;
}

static void matrices_spread_like_initial_weights(void **state)
{
    (void)state;
    tt_weights *w = open_random();
    tt_tensor t = get(w, "a.weight", 2, 300, 700);
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < 300 * 700; i++) {
        sum += at(&t, i);
        squares += (double)at(&t, i) * at(&t, i);
    }
    assert_float_equal(sum / 210000, 0, 2e-4);
    assert_float_equal(sqrt(squares / 210000), 0.02, 2e-4);
    tt_weights_close(w);
}

static void gains_are_near_one_and_biases_are_not(void **state)
{
    (void)state;
    tt_weights *w = open_random();
    tt_tensor gain = get(w, "norm.weight", 1, 999, 0), bias = get(w, "q.bias", 1, 999, 0);
    for (int i = 0; i < 999; i++) {
        assert_true(fabsf(at(&gain, i) - 1) < 0.04f);
        assert_true(fabsf(at(&bias, i)) < 0.04f);
    }
    tt_weights_close(w);
}

static void numbers_depend_on_the_name_alone(void **state)
{
    (void)state;
    tt_weights *one = open_random(), *other = open_random();
    tt_tensor early = get(one, "b", 2, 40, 50);
    get(other, "large", 2, 3000, 5000); /* makes the block grow */
    tt_tensor late = get(other, "b", 2, 40, 50), more = get(other, "c", 2, 40, 50);
    assert_memory_equal(early.data, late.data, 4000);
    assert_memory_not_equal(late.data, more.data, 4000);
    get(one, "larger", 2, 6000, 5000);
    assert_memory_equal(early.data, late.data, 4000); /* the outgrown block is still there */
    assert_int_equal((uintptr_t)late.data % 64, 0);
    tt_weights_close(one);
    tt_weights_close(other);
}

static void asked_for_once_it_is_a_checkpoints(void **state)
{
    (void)state;
    tt_weights *w = open_random();
    tt_err e;
    tt_tensor t, first = get(w, "a", 2, 4, 6), again = get(w, "a", 2, -1, 6);
    assert_ptr_equal(first.data, again.data);
    assert_int_equal(again.dim[0], 4);
    assert_int_equal(tt_weights_get(w, "a", 2, (int64_t[]){6, 4}, &t, &e), TT_EFORMAT);
    assert_non_null(strstr(e.text, "[4, 6]"));
    get(w, "n", 1, 10, 0);
    assert_int_equal(tt_weights_count(w), 2);
    assert_int_equal(tt_weights_elements(w), 34);
    assert_int_equal(tt_weights_bytes(w), 68);
    assert_true(tt_weights_has(w, "n") && !tt_weights_has(w, "m"));
    assert_string_equal(tt_weights_name(w, 0, &t), "a");
    tt_weights_close(w);
}

static void impossible_sizes_are_errors(void **state)
{
    (void)state;
    tt_weights *w = open_random();
    tt_err e;
    tt_tensor t;
    assert_int_equal(tt_weights_get(w, "a", 2, (int64_t[]){-1, 4}, &t, &e), TT_EUNSUP);
    assert_non_null(strstr(e.text, "'a'"));
    assert_int_equal(tt_weights_get(w, "a", 2, (int64_t[]){INT64_MAX, 4}, &t, &e), TT_EFORMAT);
    assert_int_equal(tt_weights_get(w, "a", 1, (int64_t[]){INT64_MAX / 16}, &t, &e), TT_ENOMEM);
    assert_int_equal(tt_weights_count(w), 0);
    tt_weights_close(w);
}

/* --- whole models --- */

static void a_config_is_enough_to_run(void **state)
{
    (void)state;
    tt_stream *s;
    tt_weights *w;
    tt_config *c;
    tt_model *m;
    tt_err e;
    assert_int_equal(tt_stream_open(&s, "plain", 1, &e), TT_OK);
    if (tt_model_open_random(&m, &w, &c, s, "tests/golden/masked-diffusion/llada", TT_WEIGHTS_AUTO,
                             NULL, NULL, &e))
        fail_msg("%s", e.text);
    int32_t id[] = {1, 2, 3}, column[] = {0, 1, 2};
    tt_pass_seq seq = {.rows = 3, .see_end = 3};
    tt_want want[3];
    tt_row_stats stats[3];
    for (int i = 0; i < 3; i++)
        want[i] = (tt_want){.row = i, .uncond = -1, .draw = {.top_p = 1, .target = -1}};
    tt_pass p = {.rows = 3,
                 .id = id,
                 .position = column,
                 .column = column,
                 .seqs = 1,
                 .seq = &seq,
                 .wants = 3,
                 .want = want,
                 .stats = stats};
    assert_int_equal(tt_model_run(m, &p, &e), TT_OK);
    for (int i = 0; i < 3; i++) {
        assert_in_range(stats[i].argmax, 0, m->info.vocab - 1);
        assert_true(stats[i].prob > 0 && stats[i].prob < 0.5f); /* it has no opinion */
    }
    tt_model_close(m);
    tt_weights_close(w);
    tt_config_close(c);
    tt_stream_close(s);
}

/* A device that packs nothing, so that only what the host holds counts. */
static int64_t packed;
static unsigned seen; /* of the parts' first and last bytes, which must be readable */

static tt_status pack_nothing(tt_stream *s, tt_matrix **out, const tt_weight *part, int parts,
                              const float *bias, tt_compute compute, unsigned flags, tt_err *e)
{
    (void)s, (void)bias, (void)compute, (void)flags, (void)e;
    *out = NULL;
    for (int i = 0; i < parts; i++) {
        const unsigned char *data = part[i].data.data;
        int64_t n = tt_tensor_count(&part[i].data);
        packed += n;
        seen += data[0] + data[2 * n - 1];
    }
    return TT_OK;
}

static int64_t resident_bytes(void)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%*d %ld", &pages), 1);
    fclose(f);
    return pages * sysconf(_SC_PAGESIZE);
}

static void shapes_of_released_models_are_theirs(void **state)
{
    (void)state;
    static const struct {
        const char *folder;
        int64_t parameters, layer_weights, kv_elements;
    } shape[] = {
        {"tests/bench/shapes/llada-170m", 170776320, 132120576, 21504},
        {"tests/bench/shapes/dream-7b", 7615616512, 6525288448, 28672},
        {"tests/bench/shapes/llada-8b", 8015581184, 6979321856, 262144},
    };
    tt_stream *s;
    tt_err e;
    assert_int_equal(tt_stream_open(&s, "plain", 1, &e), TT_OK);
    s->op.matrix_open = pack_nothing;
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        tt_weights *w;
        tt_config *c;
        tt_model *m;
        tt_buf unread = {0};
        int64_t before = resident_bytes();
        packed = 0;
        if (tt_model_open_random(&m, &w, &c, s, shape[i].folder, TT_WEIGHTS_AUTO, NULL, NULL, &e))
            fail_msg("%s", e.text);
        assert_int_equal(m->info.parameters, shape[i].parameters);
        assert_int_equal(m->info.layer_weights, shape[i].layer_weights);
        assert_int_equal(m->info.kv_bytes_per_column, shape[i].kv_elements * 4);
        assert_true(packed >= shape[i].layer_weights + m->info.vocab * m->info.width);
        assert_int_equal(tt_config_unread(c, &unread), 0);
        assert_true(resident_bytes() - before < (int64_t)2 << 30);
        tt_model_close(m);
        tt_weights_close(w);
        tt_config_close(c);
        tt_buf_free(&unread);
    }
    tt_stream_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matrices_spread_like_initial_weights),
        cmocka_unit_test(gains_are_near_one_and_biases_are_not),
        cmocka_unit_test(numbers_depend_on_the_name_alone),
        cmocka_unit_test(asked_for_once_it_is_a_checkpoints),
        cmocka_unit_test(impossible_sizes_are_errors),
        cmocka_unit_test(a_config_is_enough_to_run),
        cmocka_unit_test(shapes_of_released_models_are_theirs),
    };
    return cmocka_run_group_tests_name("random", tests, NULL, NULL);
}
