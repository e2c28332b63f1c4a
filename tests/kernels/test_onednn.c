/* The oneDNN plug-in beyond what every backend is tested for.
 *
 * What can go wrong: an older processor on which oneDNN computes a row differently in every batch,
 * or has no bfloat16; OpenMP threads that spin; many batch sizes. Processors are simulated by
 * ONEDNN_MAX_CPU_ISA, which is read once, so each runs in a program of its own. */
#include "tests/kernels/ops.h"

#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N = 150, K = 70, ROWS = 33 };

/* One product in a type on a device: rows alone and together must agree; the result in y. */
static int multiply(const char *device, tt_compute compute, float y[ROWS * N])
{
    static float w[N * K], x[ROWS * K], one[N];
    tt_stream *s;
    tt_err e = {0};
    test_state = 5;
    for (int i = 0; i < N * K; i++)
        w[i] = test_normal();
    for (int i = 0; i < ROWS * K; i++)
        x[i] = test_normal();
    tt_weight part = test_weight(w, TT_F32, N, K);
    tt_matrix *m = NULL;
    if (tt_stream_open(&s, device, 2, &e)) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    if (s->op.matrix_open(s, &m, &part, 1, NULL, compute, TT_MATRIX_LINEAR, &e) ||
        s->op.linear(s, y, N, x, K, ROWS, m, false, &e)) {
        fprintf(stderr, "%s\n", e.text);
        return 2;
    }
    for (int r = 0; r < ROWS; r++)
        if (s->op.linear(s, one, N, x + r * K, K, 1, m, false, &e) ||
            memcmp(one, y + r * N, sizeof one))
            return 3;
    s->op.matrix_close(s, m);
    tt_stream_close(s);
    return 0;
}

/* Runs as its own program: "cpu" works and agrees with the twin whatever oneDNN can do here. */
static int old_processor(void)
{
    static float have[ROWS * N], want[ROWS * N];
    tt_stream *s = NULL;
    tt_err e = {0};
    tt_log_set_level(TT_LOG_WARN);
    if (tt_stream_open(&s, "onednn", 1, &e) != TT_ENODEV ||
        !strstr(e.text, "depend on the batch")) {
        fprintf(stderr, "onednn: '%s'\n", e.text);
        return 10;
    }
    for (int compute = TT_COMPUTE_F32; compute <= TT_COMPUTE_BF16; compute++) {
        int rc = multiply("cpu", (tt_compute)compute, have);
        if (rc || multiply("twin", (tt_compute)compute, want))
            return rc ? rc : 11;
        test_close("cpu", have, want, ROWS, N, N, 1e-5);
    }
    return 0;
}

/* AVX-512 without bfloat16 dot products: oneDNN opens and is right in both types. */
static int middle_processor(void)
{
    static float have[ROWS * N], want[ROWS * N];
    tt_log_set_level(TT_LOG_WARN);
    for (int compute = TT_COMPUTE_F32; compute <= TT_COMPUTE_BF16; compute++) {
        int rc = multiply("onednn", (tt_compute)compute, have);
        if (rc || multiply("twin", (tt_compute)compute, want))
            return rc ? rc : 11;
        test_close("onednn", have, want, ROWS, N, N, 1e-5);
    }
    return 0;
}

static bool available(void)
{
    tt_stream *s = NULL;
    bool yes = !tt_stream_open(&s, "onednn", 1, NULL);
    tt_stream_close(s);
    return yes;
}

static int run_self(const char *what, const char *isa)
{
    pid_t child = fork();
    if (child == 0) {
        setenv("ONEDNN_MAX_CPU_ISA", isa, 1);
        execl("/proc/self/exe", "test_onednn", what, (char *)NULL);
        _exit(127);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
        return 126;
    return WEXITSTATUS(status);
}

static void an_older_processor_falls_back_to_our_kernels(void **state)
{
    (void)state;
    if (!available())
        skip();
    assert_int_equal(run_self("old", "AVX2"), 0);
    assert_int_equal(run_self("old", "SSE41"), 0);
}

static void without_bfloat16_products_the_result_is_the_same(void **state)
{
    (void)state;
    if (!available())
        skip();
    assert_int_equal(run_self("middle", "AVX512_CORE"), 0);
}

static void openmp_gets_one_thread_and_no_spinning(void **state)
{
    (void)state;
    if (!available())
        skip();
    assert_string_equal(getenv("OMP_WAIT_POLICY"), "passive");
    assert_string_equal(getenv("OMP_NUM_THREADS"), "1");
}

static void every_batch_size_works(void **state)
{
    (void)state;
    if (!available())
        skip();
    enum { MOST = 200 };
    static float w[N * K], x[MOST * K], y[MOST * N], all[MOST * N];
    for (int i = 0; i < N * K; i++)
        w[i] = test_normal();
    for (int i = 0; i < MOST * K; i++)
        x[i] = test_normal();
    tt_weight part = test_weight(w, TT_F32, N, K);
    for (int threads = 1; threads <= 3; threads++) {
        tt_stream *s;
        tt_matrix *m = NULL;
        tt_err e = {0};
        test_ok(tt_stream_open(&s, "onednn", threads, &e), &e);
        test_ok(s->op.matrix_open(s, &m, &part, 1, NULL, TT_COMPUTE_BF16, 1, &e), &e);
        test_ok(s->op.linear(s, all, N, x, K, MOST, m, false, &e), &e);
        for (int rows = 1; rows <= MOST; rows++) {
            memset(y, 0, sizeof y);
            test_ok(s->op.linear(s, y, N, x, K, rows, m, false, &e), &e);
            test_same_bits("linear", y, all, (int64_t)rows * N);
        }
        s->op.matrix_close(s, m);
        tt_stream_close(s);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return !strcmp(argv[1], "old") ? old_processor() : middle_processor();
    tt_log_set_level(TT_LOG_WARN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_older_processor_falls_back_to_our_kernels),
        cmocka_unit_test(without_bfloat16_products_the_result_is_the_same),
        cmocka_unit_test(openmp_gets_one_thread_and_no_spinning),
        cmocka_unit_test(every_batch_size_works),
    };
    return cmocka_run_group_tests_name("onednn", tests, NULL, NULL);
}
