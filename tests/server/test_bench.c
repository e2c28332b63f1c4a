/* What can go wrong: a floor that leaves out a term, sizes that do not fit a model's context and
 * are not noticed, a device that cannot tell what it reaches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "server/bench/bench.h"

static const tt_model_info llada_8b = {.layers = 32,
                                       .width = 4096,
                                       .heads = 32,
                                       .kv_heads = 32,
                                       .head_dim = 128,
                                       .vocab = 126464,
                                       .context = 4096,
                                       .layer_weights = 6979321856,
                                       .bytes_per_weight = 2,
                                       .products = TT_COMPUTE_BF16,
                                       .kv_bytes_per_column = 524288};
static const tt_model_info dream_7b = {.layers = 28,
                                       .width = 3584,
                                       .heads = 28,
                                       .kv_heads = 4,
                                       .head_dim = 128,
                                       .vocab = 152064,
                                       .context = 2048,
                                       .layer_weights = 6525288448,
                                       .bytes_per_weight = 2,
                                       .products = TT_COMPUTE_BF16,
                                       .kv_bytes_per_column = 57344};

/* Worked out by hand for 3.35 TB/s and 989 TFLOP/s. */
static void floors_are_those_of_the_formula(void **state)
{
    (void)state;
    static const struct {
        const tt_model_info *info;
        int64_t rows, wants, stored, seen; /* of the pass */
        double memory_ms, arithmetic_ms;
    } c[] = {
        {&llada_8b, 32, 32, 1024, 32 * 1024, 4.64, 0.50},
        {&llada_8b, 8 * 32, 8 * 32, 8 * 1024, 8 * 32 * 1024, 5.76, 4.02},
        {&llada_8b, 1280, 256, 0, 1280 * 1280, 4.48, 19.2},
        {&llada_8b, 32, 0, 0, 0, 4.17, 0.45},
        {&dream_7b, 32, 32, 1024, 32 * 1024, 4.24, 0.47},
        {&dream_7b, 8 * 32, 8 * 32, 8 * 1024, 8 * 32 * 1024, 4.36, 3.77},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        tt_model m = {.info = *c[i].info};
        tt_bench b = {
            .model = &m,
            .ceilings = {.bytes_per_s = 3.35e12, .flops_bf16 = 989e12, .flops_f32 = 67e12}};
        tt_bench_floor f = tt_bench_least(&b, c[i].rows, c[i].wants, c[i].stored, c[i].seen);
        assert_float_equal(f.memory * 1e3 / c[i].memory_ms, 1, 0.01);
        assert_float_equal(f.arithmetic * 1e3 / c[i].arithmetic_ms, 1, 0.01);
    }
}

static void without_ceilings_there_is_no_floor(void **state)
{
    (void)state;
    tt_model m = {.info = llada_8b};
    tt_bench b = {.model = &m};
    tt_bench_floor f = tt_bench_least(&b, 32, 32, 0, 0);
    assert_true(f.memory == 0 && f.arithmetic == 0);
    /* no units for bfloat16: as quick as float32 */
    b.ceilings = (tt_ceilings){.bytes_per_s = 1e9, .flops_f32 = 1e9};
    m.info.layer_weights = 1000000;
    assert_float_equal(tt_bench_least(&b, 500, 0, 0, 0).arithmetic, 1, 1e-6);
    m.info.layer_weights = 0; /* a family that cannot say */
    assert_true(tt_bench_least(&b, 500, 0, 0, 0).arithmetic == 0);
}

static tt_bench_sizes sizes(void)
{
    return (tt_bench_sizes){.rows = {.v = {1, 128, 1280}, .n = 3},
                            .block = 32,
                            .cached = -1,
                            .prompt = -1,
                            .tokens = -1};
}

static void what_is_not_asked_for_fits_the_context(void **state)
{
    (void)state;
    tt_model_info info = llada_8b;
    tt_bench_sizes s = sizes();
    assert_int_equal(tt_bench_fit(&s, &info, NULL), TT_OK);
    assert_int_equal(s.rows.n, 3);
    assert_int_equal(s.cached, 1024);
    assert_int_equal(s.prompt + s.tokens, 512);
    info.context = 128;
    s = sizes();
    assert_int_equal(tt_bench_fit(&s, &info, NULL), TT_OK);
    assert_int_equal(s.rows.n, 2);
    assert_int_equal(s.cached, 96);
    assert_int_equal(s.tokens, 64);
    assert_int_equal(s.prompt, 64);
    s = sizes();
    s.block = 128; /* nothing is left to be stored */
    assert_int_equal(tt_bench_fit(&s, &info, NULL), TT_OK);
    assert_int_equal(s.cached, 0);
}

static void what_is_asked_for_and_does_not_fit_is_named(void **state)
{
    (void)state;
    tt_model_info info = llada_8b;
    info.context = 128;
    tt_bench_sizes s[5];
    static const char *const option[] = {"--rows", "--block", "--cached", "--tokens", "--prompt"};
    for (int i = 0; i < 5; i++)
        s[i] = sizes();
    s[0].rows.given = true;
    s[1].block = 129;
    s[2].cached = 97;
    s[3].tokens = 129;
    s[4].prompt = 65;
    for (int i = 0; i < 5; i++) {
        tt_err e = {0};
        assert_int_equal(tt_bench_fit(&s[i], &info, &e), TT_EINVAL);
        assert_non_null(strstr(e.text, option[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floors_are_those_of_the_formula),
        cmocka_unit_test(without_ceilings_there_is_no_floor),
        cmocka_unit_test(what_is_not_asked_for_fits_the_context),
        cmocka_unit_test(what_is_asked_for_and_does_not_fit_is_named),
    };
    return cmocka_run_group_tests_name("bench", tests, NULL, NULL);
}
