/* What can go wrong: an index outside the picture at odd sizes, weights that do not sum to one,
 * sides that overflow. Exactness is shown by the reference vectors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizers/resize.h"

static void one_colour_stays(void **state)
{
    (void)state;
    const int32_t sides[] = {1, 2, 3, 7, 31, 64, 100};
    enum { SIDES = sizeof sides / sizeof *sides };
    for (int i = 0; i < SIDES * SIDES; i++) {
        int32_t from = sides[i / SIDES], to = sides[i % SIDES];
        size_t n = (size_t)from * 5 * 3, m = (size_t)to * 9 * 3;
        uint8_t *in = malloc(n), *out = malloc(m); /* exact, so that a checker sees any overrun */
        memset(in, 173, n);
        assert_int_equal(tt_resize_bicubic(out, to, 9, in, from, 5, 3, NULL), TT_OK);
        for (size_t j = 0; j < m; j++)
            assert_in_range(out[j], 172, 174);
        free(in);
        free(out);
    }
}

static void the_same_size_is_the_same_picture(void **state)
{
    (void)state;
    uint8_t in[5 * 4], out[5 * 4];
    for (size_t i = 0; i < sizeof in; i++)
        in[i] = (uint8_t)(i * 37);
    assert_int_equal(tt_resize_bicubic(out, 5, 4, in, 5, 4, 1, NULL), TT_OK);
    assert_memory_equal(in, out, sizeof in);
}

static void sides_and_channels_are_checked(void **state)
{
    (void)state;
    uint8_t pixel[4] = {0}, out[4];
    tt_err e = {0};
    assert_int_equal(tt_resize_bicubic(out, 0, 1, pixel, 1, 1, 3, &e), TT_EINVAL);
    assert_int_equal(tt_resize_bicubic(out, 1, 1, pixel, TT_MAX_SIDE + 1, 1, 3, &e), TT_EINVAL);
    assert_int_equal(tt_resize_bicubic(out, 1, 1, pixel, 1, 1, 5, &e), TT_EINVAL);
    assert_int_equal(tt_resize_crop(out, 1 << 10, pixel, TT_MAX_SIDE, 1, &e), TT_EINVAL);
    assert_non_null(strstr(e.text, "too long"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_colour_stays),
        cmocka_unit_test(the_same_size_is_the_same_picture),
        cmocka_unit_test(sides_and_channels_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
