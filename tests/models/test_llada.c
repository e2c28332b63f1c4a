/* What can go wrong: a config that contradicts itself or asks for a variant nobody wrote, tensors
 * missing or misshapen, passes that read outside the sequence, weights modes that disagree. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "models/kv.h"

#define FOLDER "tests/golden/masked-diffusion/llada"

typedef struct {
    tt_stream *stream;
    tt_weights *weights;
    tt_config *config;
    tt_model *model;
} world;

static char config_text[8192];

static int setup(void **state)
{
    static world w;
    tt_err e;
    FILE *f = fopen(FOLDER "/config.json", "rb");
    if (!f)
        return -1;
    config_text[fread(config_text, 1, sizeof config_text - 1, f)] = '\0';
    fclose(f);
    if (tt_stream_open(&w.stream, "plain", 1, &e) ||
        tt_model_open(&w.model, &w.weights, &w.config, w.stream, FOLDER, TT_WEIGHTS_F32, NULL,
                      NULL, &e)) {
        print_error("%s\n", e.text);
        return -1;
    }
    *state = &w;
    return 0;
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

/* Opens the golden weights with one config value replaced. */
static tt_status open_with(const world *w, const char *from, const char *to, tt_err *e)
{
    static char text[8400];
    const char *at = strstr(config_text, from);
    assert_non_null(at);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - config_text), config_text, to,
             at + strlen(from));
    tt_config *c;
    tt_model *m = NULL;
    tt_status s = tt_config_open_text(&c, text, strlen(text), e);
    if (s)
        return s;
    s = tt_model_find("LLaDAModelLM")->open(&m, w->stream, w->weights, c, TT_WEIGHTS_F32, NULL,
                                            NULL, e);
    tt_model_close(m);
    tt_config_close(c);
    return s;
}

static void bad_configs_name_the_key(void **state)
{
    const world *w = *state;
    static const struct {
        const char *from, *to, *says;
        tt_status status;
    } bad[] = {
        {"\"alibi\": false", "\"alibi\": true", "alibi", TT_EUNSUP},
        {"\"include_bias\": false", "\"include_bias\": true", "include_bias", TT_EUNSUP},
        {"\"layer_norm_type\": \"rms\"", "\"layer_norm_type\": \"low\"", "layer_norm_type",
         TT_EUNSUP},
        {"\"activation_type\": \"silu\"", "\"activation_type\": \"gelu\"", "gelu", TT_EUNSUP},
        {"\"rope\": true", "\"rope\": false", "wpe", TT_EFORMAT},
        {"\"d_model\": 64", "\"d_model\": \"wide\"", "d_model", TT_EFORMAT},
        {"\"d_model\": 64", "\"d_model\": 0", "d_model", TT_EFORMAT},
        {"\"d_model\": 64", "\"d_model\": 1e18", "d_model", TT_EFORMAT},
        {"\"d_model\": 64", "\"d_model\": 66", "d_model", TT_EFORMAT},
        {"\"d_model\": 64", "\"no_model\": 64", "d_model", TT_EFORMAT},
        {"\"n_layers\": 3", "\"n_layers\": 4", "blocks.3", TT_EFORMAT},
        {"\"n_layers\": 3", "\"n_layers\": 2.5", "n_layers", TT_EFORMAT},
        {"\"n_kv_heads\": 4", "\"n_kv_heads\": 3", "n_kv_heads", TT_EFORMAT},
        {"\"n_kv_heads\": 4", "\"n_kv_heads\": 2", "k_proj", TT_EFORMAT},
        {"\"mlp_hidden_size\": 160", "\"mlp_hidden_size\": 161",
         "[160, 64], expected [161, 64]", TT_EFORMAT},
        {"\"mask_token_id\": 316", "\"mask_token_id\": 320", "token id", TT_EFORMAT},
        {"\"mask_token_id\": 316", "\"mask_token_id\": -1", "mask_token_id", TT_EFORMAT},
        {"\"vocab_size\": 320", "\"vocab_size\": 100000000", "wte", TT_EFORMAT},
        {"\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 1e400", "rms_norm_eps", TT_EFORMAT},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tt_err e = {0};
        tt_status s = open_with(w, bad[i].from, bad[i].to, &e);
        if (s != bad[i].status || !strstr(e.text, bad[i].says))
            fail_msg("%s: status %d, \"%s\"", bad[i].to, s, e.text);
    }
}

static void unread_keys_are_reported(void **state)
{
    (void)state;
    tt_config *c;
    tt_err e;
    tt_buf unread = {0};
    const char *text = "{\"known\": 1, \"mystery\": 2, \"other\": null}";
    assert_int_equal(tt_config_open_text(&c, text, strlen(text), &e), TT_OK);
    assert_int_equal(tt_config_int(c, "known", 0, 0, 9), 1);
    assert_int_equal(tt_config_unread(c, &unread), 2);
    assert_string_equal(tt_buf_text(&unread), "mystery, other");
    tt_buf_free(&unread);
    tt_config_close(c);
}

static void broken_configs_give_line_and_column(void **state)
{
    (void)state;
    tt_config *c;
    tt_err e;
    const char *text = "{\n  \"a\": 1,\n  \"b\" 2}";
    assert_int_equal(tt_config_open_text(&c, text, strlen(text), &e), TT_EFORMAT);
    assert_non_null(strstr(e.text, "line 3"));
    assert_int_equal(tt_config_open_text(&c, "{\"a\":\"\xc0\"}", 9, &e), TT_EFORMAT);
    assert_int_equal(tt_config_open_text(&c, "[1]", 3, &e), TT_EFORMAT);
    assert_int_equal(tt_config_open_text(&c, "", 0, &e), TT_EFORMAT);
}

static void an_unknown_architecture_is_an_error(void **state)
{
    const world *w = *state;
    char folder[] = "/tmp/tutti-model-XXXXXX", path[100];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/config.json", folder);
    FILE *f = fopen(path, "w");
    fputs("{\"architectures\": [\"GPT2LMHeadModel\"]}", f);
    fclose(f);
    tt_model *m;
    tt_weights *weights;
    tt_config *c;
    tt_err e;
    assert_int_equal(tt_model_open(&m, &weights, &c, w->stream, folder, TT_WEIGHTS_AUTO, NULL,
                                   NULL, &e), TT_EUNSUP);
    assert_non_null(strstr(e.text, "GPT2LMHeadModel"));
    unlink(path);
    rmdir(folder);
}

/* --- passes --- */

enum { N = 12 };

typedef struct {
    int32_t id[N], column[N];
    tt_pass_seq seq;
    tt_want want[N];
    tt_row_stats stats[N];
    tt_pass pass;
} example;

static void make_pass(example *x)
{
    *x = (example){0};
    for (int i = 0; i < N; i++) {
        x->id[i] = i * 20;
        x->column[i] = i;
        x->want[i] = (tt_want){.row = i, .uncond = -1, .draw = {.target = -1}};
    }
    x->seq = (tt_pass_seq){.rows = N, .see_end = N};
    x->pass = (tt_pass){.rows = N, .id = x->id, .position = x->column, .column = x->column,
                        .seqs = 1, .seq = &x->seq, .wants = N, .want = x->want,
                        .stats = x->stats};
}

/* States are what the last hidden layer holds, whether or not only their rows are computed. */
static void states_are_the_final_hidden_rows(void **state)
{
    const world *w = *state;
    const tt_model_info *info = &w->model->info;
    size_t layer = (size_t)(N * info->width);
    example x;
    tt_err e;
    float *hidden = calloc((size_t)(info->layers + 1) * layer, sizeof *hidden);
    float *one = calloc(3 * (size_t)info->width, sizeof *one);
    static const int64_t rows[] = {2, 3, 9};
    make_pass(&x);
    x.pass.hidden = hidden;
    assert_int_equal(tt_model_run(w->model, &x.pass, &e), TT_OK);
    for (int wants = 0; wants < 2; wants++) {
        make_pass(&x);
        x.pass.wants = wants;
        x.pass.states = 3;
        x.pass.state_row = rows;
        x.pass.state = one;
        assert_int_equal(tt_model_run(w->model, &x.pass, &e), TT_OK);
        for (int i = 0; i < 3; i++)
            assert_memory_equal(one + i * info->width,
                                hidden + (size_t)info->layers * layer + rows[i] * info->width,
                                (size_t)info->width * sizeof *one);
    }
    static const int64_t twice[] = {2, 2}, outside[] = {N};
    x.pass.states = 2;
    x.pass.state_row = twice;
    assert_int_equal(tt_model_run(w->model, &x.pass, &e), TT_EINVAL);
    x.pass.states = 1;
    x.pass.state_row = outside;
    assert_int_equal(tt_model_run(w->model, &x.pass, &e), TT_EINVAL);
    free(hidden);
    free(one);
}

static void bad_passes_are_refused(void **state)
{
    const world *w = *state;
    example x;
    tt_err e;
    make_pass(&x);
    assert_int_equal(tt_model_run(w->model, &x.pass, &e), TT_OK);
#define REFUSED(change)                                                                            \
    make_pass(&x);                                                                                 \
    change;                                                                                        \
    assert_int_equal(tt_model_run(w->model, &x.pass, &e), TT_EINVAL)
    REFUSED(x.id[3] = 320);
    REFUSED(x.id[3] = -1);
    REFUSED(x.seq.rows = N - 1);
    REFUSED(x.seq.row = 1);
    REFUSED(x.seq.see_end = N + 1);
    REFUSED(x.seq.see_begin = -1);
    REFUSED(x.column[2] = 3);
    REFUSED(x.want[1].row = N);
    REFUSED(x.want[1].uncond = N);
    REFUSED(x.pass.n_top = TT_MAX_TOP + 1);
#undef REFUSED
}

/* Learned positions: the vectors of tests/golden/masked-diffusion/positions show the sums. */
static void a_position_without_a_row_is_refused(void **state)
{
    const world *w = *state;
    example x;
    tt_err e;
    tt_model *m;
    tt_weights *weights;
    tt_config *c;
    int32_t far[N];
    assert_int_equal(tt_model_open(&m, &weights, &c, w->stream,
                                   "tests/golden/masked-diffusion/positions/dlm", TT_WEIGHTS_F32,
                                   NULL, NULL, &e), TT_OK);
    assert_int_equal(m->info.context, 81);
    for (int32_t last = 79; last <= 81; last++) {
        make_pass(&x);
        for (int i = 0; i < N; i++) {
            x.id[i] = i;
            far[i] = last - N + 1 + i;
        }
        x.pass.position = far;
        assert_int_equal(tt_model_run(m, &x.pass, &e), last < 81 ? TT_OK : TT_EINVAL);
    }
    assert_non_null(strstr(e.text, "position 81 of 81"));
    tt_model_close(m);
    tt_weights_close(weights);
    tt_config_close(c);
}

static void a_store_column_must_be_filled_before_it_is_read(void **state)
{
    const world *w = *state;
    example x;
    tt_err e;
    tt_kv *kv;
    make_pass(&x);
    assert_int_equal(tt_kv_open(&kv, w->model, N + 4, &e), TT_OK);
    x.seq.kv = kv;
    x.seq.see_end = N + 1;
    assert_int_equal(tt_model_run(w->model, &x.pass, &e), TT_EINVAL);
    assert_non_null(strstr(e.text, "never computed"));
    tt_kv_close(kv);
    assert_int_equal(tt_kv_open(&kv, w->model, 0, &e), TT_EINVAL);
    assert_int_equal(tt_kv_open(&kv, w->model, 1 << 30, &e), TT_EINVAL);
}

static void a_stored_pass_equals_one_without_store(void **state)
{
    const world *w = *state;
    example a, b;
    tt_err e;
    tt_kv *kv;
    make_pass(&a);
    make_pass(&b);
    assert_int_equal(tt_kv_open(&kv, w->model, N, &e), TT_OK);
    b.seq.kv = kv;
    assert_int_equal(tt_model_run(w->model, &a.pass, &e), TT_OK);
    assert_int_equal(tt_model_run(w->model, &b.pass, &e), TT_OK);
    assert_memory_equal(a.stats, b.stats, sizeof a.stats);
    tt_kv_close(kv);
}

static void guidance_of_scale_zero_changes_nothing(void **state)
{
    const world *w = *state;
    example a, b;
    tt_err e;
    make_pass(&a);
    make_pass(&b);
    for (int i = 0; i < N; i++)
        b.want[i].uncond = i; /* mixed with itself */
    assert_int_equal(tt_model_run(w->model, &a.pass, &e), TT_OK);
    assert_int_equal(tt_model_run(w->model, &b.pass, &e), TT_OK);
    assert_memory_equal(a.stats, b.stats, sizeof a.stats);
}

/* What the stream's backend makes of an element of integers that are multiplied in bf16. */
static int32_t bytes_of_an_integer(tt_stream *s)
{
    enum { N_OUT = 64, K_IN = 64 };
    static int8_t data[N_OUT * K_IN];
    static float scale[N_OUT];
    tt_err e;
    size_t bytes;
    tt_matrix *m;
    tt_weight part = {.data = {.dtype = TT_I8, .rank = 2, .dim = {N_OUT, K_IN}, .data = data},
                      .scale = {.dtype = TT_F32, .rank = 1, .dim = {N_OUT}, .data = scale}};
    assert_int_equal(s->op.matrix_open(s, &m, &part, 1, NULL, TT_COMPUTE_BF16, TT_MATRIX_LINEAR,
                                       &e), TT_OK);
    s->op.matrix_size(m, NULL, NULL, &bytes);
    s->op.matrix_close(s, m);
    return bytes < (size_t)2 * N_OUT * K_IN ? 1 : 2;
}

/* bf16 and int8 round the weights or operands; the distributions must stay close to f32's. */
static void narrow_weights_stay_close(void **state)
{
    const world *w = *state;
    static const tt_weights_mode modes[] = {TT_WEIGHTS_BF16, TT_WEIGHTS_INT8};
    example full, narrow;
    tt_err e;
    make_pass(&full);
    assert_int_equal(w->model->info.bytes_per_weight, 4);
    assert_int_equal(tt_model_run(w->model, &full.pass, &e), TT_OK);
    for (int i = 0; i < 2; i++) {
        tt_model *m;
        tt_weights *weights;
        tt_config *c;
        assert_int_equal(tt_model_open(&m, &weights, &c, w->stream, FOLDER, modes[i], NULL, NULL,
                                       &e), TT_OK);
        assert_int_equal(m->info.bytes_per_weight, i ? bytes_of_an_integer(w->stream) : 2);
        make_pass(&narrow);
        assert_int_equal(tt_model_run(m, &narrow.pass, &e), TT_OK);
        for (int r = 0; r < N; r++) {
            assert_true(fabsf(narrow.stats[r].max_logit - full.stats[r].max_logit) < 0.5f);
            assert_true(fabsf(narrow.stats[r].entropy - full.stats[r].entropy) < 0.5f);
        }
        tt_model_close(m);
        tt_weights_close(weights);
        tt_config_close(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_configs_name_the_key),
        cmocka_unit_test(unread_keys_are_reported),
        cmocka_unit_test(broken_configs_give_line_and_column),
        cmocka_unit_test(an_unknown_architecture_is_an_error),
        cmocka_unit_test(states_are_the_final_hidden_rows),
        cmocka_unit_test(bad_passes_are_refused),
        cmocka_unit_test(a_position_without_a_row_is_refused),
        cmocka_unit_test(a_store_column_must_be_filled_before_it_is_read),
        cmocka_unit_test(a_stored_pass_equals_one_without_store),
        cmocka_unit_test(guidance_of_scale_zero_changes_nothing),
        cmocka_unit_test(narrow_weights_stay_close),
    };
    return cmocka_run_group_tests_name("llada", tests, setup, teardown);
}
