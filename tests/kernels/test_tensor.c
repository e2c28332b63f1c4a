/* Element types and conversions, and what this processor can do.
 *
 * What can go wrong: rounding that is not to nearest even, NaN that becomes infinity, subnormal
 * halves, a level above what the processor has. */
#include "tests/kernels/ops.h"

static void bfloat16_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (uint64_t bits = 0; bits <= 0xFFFFFFFFu; bits += 977) {
        uint32_t b = (uint32_t)bits;
        float f;
        memcpy(&f, &b, 4);
        uint16_t h = tt_f32_to_bf16(f);
        float back = tt_bf16_to_f32(h);
        if (isnan(f)) {
            assert_true(isnan(back));
            continue;
        }
        /* The two neighbours in bfloat16; the nearer one, or the even one. */
        uint16_t down = (uint16_t)(b >> 16), up = (uint16_t)(down + 1);
        uint32_t rest = b & 0xFFFF;
        uint16_t want = rest > 0x8000 || (rest == 0x8000 && (down & 1)) ? up : down;
        assert_int_equal(h, want);
    }
    assert_true(tt_bf16_to_f32(0x3F80) == 1);
    assert_true(isinf(tt_bf16_to_f32(tt_f32_to_bf16(3.4e38f))));
}

static void every_half_has_its_value(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        int sign = h & 0x8000 ? -1 : 1, exponent = (int)(h >> 10 & 31);
        float have = tt_f16_to_f32((uint16_t)h), fraction = (float)(h & 1023);
        if (exponent == 31) {
            assert_true(fraction > 0 ? isnan(have) : have == (float)sign * INFINITY);
            continue;
        }
        double want = exponent ? ldexp(1 + (double)fraction / 1024, exponent - 15)
                               : ldexp((double)fraction, -24);
        assert_true(have == (float)(sign * want));
        assert_int_equal(signbit(have) != 0, sign < 0);
    }
}

static void tensors_widen_to_float32(void **state)
{
    (void)state;
    static const double d[] = {1.5, -2, 1e300};
    static const int8_t i8[] = {-128, 127, 0};
    static const uint8_t u8[] = {0, 255, 7};
    static const uint16_t bf[] = {0x3F80, 0xC000, 0}, h[] = {0x3C00, 0xC000, 0};
    const struct {
        const void *data;
        tt_dtype type;
        float want[3];
    } c[] = {{d, TT_F64, {1.5f, -2, INFINITY}},
             {i8, TT_I8, {-128, 127, 0}},
             {u8, TT_U8, {0, 255, 7}},
             {bf, TT_BF16, {1, -2, 0}},
             {h, TT_F16, {1, -2, 0}}};
    for (int i = 0; i < 5; i++) {
        tt_tensor t = {.data = c[i].data, .dim = {3}, .rank = 1, .dtype = c[i].type};
        float out[2];
        assert_int_equal(tt_to_f32(out, &t, 1, 2, NULL), TT_OK);
        assert_true(out[0] == c[i].want[1] && out[1] == c[i].want[2]);
        assert_int_equal(tt_tensor_count(&t), 3);
    }
    tt_tensor t = {.data = d, .dtype = TT_I64};
    tt_err e = {0};
    float out;
    assert_int_equal(tt_to_f32(&out, &t, 0, 1, &e), TT_EUNSUP);
    assert_non_null(strstr(e.text, "I64"));
    assert_int_equal(tt_tensor_count(&t), 1);
}

static void types_are_found_by_their_names(void **state)
{
    (void)state;
    for (int i = 0; i < TT_DTYPES; i++) {
        tt_dtype found = TT_DTYPES;
        assert_true(tt_dtype_find(tt_dtype_name((tt_dtype)i), &found));
        assert_int_equal(found, i);
        assert_in_range(tt_dtype_size((tt_dtype)i), 1, 8);
    }
    tt_dtype found;
    assert_false(tt_dtype_find("f32", &found));
    assert_false(tt_dtype_find("", &found));
}

static void a_level_can_be_lowered_but_not_raised(void **state)
{
    (void)state;
    unsetenv("TUTTI_CPU");
    tt_cpu_level have = tt_cpu_level_get();
    for (int i = 0; i < TT_CPU_LEVELS; i++) {
        setenv("TUTTI_CPU", tt_cpu_level_name((tt_cpu_level)i), 1);
        assert_int_equal(tt_cpu_level_get(), i < (int)have ? i : (int)have);
    }
    setenv("TUTTI_CPU", "nonsense", 1);
    assert_int_equal(tt_cpu_level_get(), have);
    unsetenv("TUTTI_CPU");
    assert_true(tt_cpu_cores() >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bfloat16_rounds_to_nearest_even),
        cmocka_unit_test(every_half_has_its_value),
        cmocka_unit_test(tensors_widen_to_float32),
        cmocka_unit_test(types_are_found_by_their_names),
        cmocka_unit_test(a_level_can_be_lowered_but_not_raised),
    };
    return cmocka_run_group_tests_name("tensor", tests, NULL, NULL);
}
