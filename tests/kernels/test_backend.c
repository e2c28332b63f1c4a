/* What can go wrong: a name that is no device, a plug-in that is missing or foreign, an operation
 * left out of the table, a device that does not exist. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/backend.h"

static void every_host_device_has_every_operation(void **state)
{
    (void)state;
    static const char *const device[] = {"auto", "cpu", "plain", "twin"};
    for (size_t i = 0; i < sizeof device / sizeof *device; i++) {
        tt_err e = {0};
        tt_stream *s;
        if (tt_stream_open(&s, device[i], 1, &e))
            fail_msg("%s", e.text);
#define PRESENT(op_name) assert_true(s->op.op_name != NULL);
        TT_OPS(PRESENT)
        TT_SOME_OPS(PRESENT)
#undef PRESENT
        assert_int_equal(s->act, TT_F32);
        assert_int_equal(tt_pool_threads(s->pool), 1);
        tt_stream_close(s);
    }
}

static void an_unknown_device_is_refused_by_name(void **state)
{
    (void)state;
    static const char *const device[] = {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda0", "CPU"};
    for (size_t i = 0; i < sizeof device / sizeof *device; i++) {
        tt_err e = {0};
        tt_stream *s = (tt_stream *)&e;
        assert_int_equal(tt_stream_open(&s, device[i], 1, &e), TT_EINVAL);
        assert_null(s);
        assert_non_null(strstr(e.text, device[i]));
    }
    assert_int_equal(tt_stream_open(&(tt_stream *){0}, "cpu", -1, NULL), TT_EINVAL);
    assert_int_equal(tt_stream_open(&(tt_stream *){0}, "cpu", 5000, NULL), TT_EINVAL);
}

static void without_its_plugin_cuda_says_why_and_cpu_still_works(void **state)
{
    (void)state;
    tt_err e = {0};
    tt_stream *s;
    setenv("TUTTI_PLUGIN_DIR", "/nonexistent", 1);
    assert_int_equal(tt_stream_open(&s, "cuda", 1, &e), TT_ENODEV);
    assert_string_equal(e.text, "device 'cuda': plug-in tutti-cuda.so is not installed");
    assert_int_equal(tt_stream_open(&s, "cuda:3", 1, &e), TT_ENODEV);
    assert_int_equal(tt_stream_open(&s, "auto", 1, &e), TT_OK);
    assert_string_equal(s->op.name, "cpu");
    tt_stream_close(s);
    unsetenv("TUTTI_PLUGIN_DIR");
}

static void threads_default_to_all_cores_but_one(void **state)
{
    (void)state;
    tt_stream *s;
    assert_int_equal(tt_stream_open(&s, "plain", 0, NULL), TT_OK);
    assert_true(tt_pool_threads(s->pool) >= 1);
    tt_stream_close(s);
    assert_int_equal(tt_stream_open(&s, "plain", 3, NULL), TT_OK);
    assert_int_equal(tt_pool_threads(s->pool), 3);
    tt_stream_close(s);
}

static void the_report_has_a_line_per_backend(void **state)
{
    (void)state;
    tt_buf out = {0};
    assert_true(tt_backend_report(&out) >= 1);
    assert_non_null(strstr(out.data, "cuda     "));
    assert_non_null(strstr(out.data, "onednn   "));
    assert_non_null(strstr(out.data, "cpu      yes: "));
    tt_buf_free(&out);
}

static void ceilings_are_those_of_what_the_device_has(void **state)
{
    (void)state;
    tt_stream *s;
    tt_ceilings c;
    tt_err e;
    assert_int_equal(tt_stream_open(&s, "cpu", 1, &e), TT_OK);
    assert_int_equal(s->op.ceilings(s, 0, &c, &e), TT_OK);
    assert_true(c.bytes_per_s > 1e8 && c.bytes_per_s < 1e13);
    assert_true(c.flops_f32 > 1e8 && c.flops_f32 < 1e14);
    assert_int_equal(c.flops_bf16 > 0, s->op.has_compute(s, TT_COMPUTE_BF16));
    tt_stream_close(s);
}

/* Sizes far above what anything else here takes or gives back meanwhile. */
static void memory_counts_what_is_held_and_its_peak(void **state)
{
    (void)state;
    enum { BYTES = 64 << 20, HALF = BYTES / 2 };
    tt_stream *s;
    tt_memory before, with, after;
    void *p;
    tt_err e;
    assert_int_equal(tt_stream_open(&s, "plain", 1, &e), TT_OK);
    assert_int_equal(s->op.memory(s, &before, &e), TT_OK);
    assert_int_equal(s->op.alloc(s, &p, BYTES, &e), TT_OK);
    memset(p, 1, BYTES);
    assert_int_equal(s->op.memory(s, &with, &e), TT_OK);
    s->op.release(s, p);
    assert_int_equal(s->op.memory(s, &after, &e), TT_OK);
    assert_true(with.used > before.used + HALF && with.peak >= with.used);
    assert_true(after.peak > before.used + HALF);
    assert_true(with.total > with.used);
    tt_stream_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_host_device_has_every_operation),
        cmocka_unit_test(an_unknown_device_is_refused_by_name),
        cmocka_unit_test(without_its_plugin_cuda_says_why_and_cpu_still_works),
        cmocka_unit_test(threads_default_to_all_cores_but_one),
        cmocka_unit_test(the_report_has_a_line_per_backend),
        cmocka_unit_test(ceilings_are_those_of_what_the_device_has),
        cmocka_unit_test(memory_counts_what_is_held_and_its_peak),
    };
    return cmocka_run_group_tests_name("backend", tests, NULL, NULL);
}
