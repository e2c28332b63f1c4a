/* Recurrent-depth models: what can go wrong beyond their forwards, which the golden replay checks:
 * configs and checkpoints that lack something, 8-bit rows whose order is changed while loading,
 * entries of the store mixed up, states kept for another column, a decider wired the wrong way, a
 * pass that asks for what cannot be. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "models/decider.h"
#include "models/kv.h"

static const char folder[] = "tests/golden/recurrent-depth/model";
static tt_stream *stream;
static tt_weights *weights;
static char text[4096]; /* of config.json */

static int setup(void **state)
{
    (void)state;
    tt_err e;
    char path[200];
    snprintf(path, sizeof path, "%s/config.json", folder);
    FILE *f = fopen(path, "rb");
    if (!f || tt_stream_open(&stream, "plain", 1, &e) || tt_weights_open(&weights, folder, &e))
        return -1;
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tt_weights_close(weights);
    tt_stream_close(stream);
    return 0;
}

/* Opens these weights with a part of the config replaced. */
static tt_status open_with(const tt_weights *w, const char *old, const char *new,
                           tt_weights_mode mode, tt_config **config, tt_model **m, tt_err *e)
{
    static char changed[5000];
    const char *at = strstr(text, old);
    if (!at)
        fail_msg("config.json has no %s", old);
    snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, new, at + strlen(old));
    *m = NULL;
    tt_status st = tt_config_open_text(config, changed, strlen(changed), e);
    if (st)
        return st;
    return tt_model_find("RavenForCausalLM")->open(m, stream, w, *config, mode, NULL, NULL, e);
}

static void bad_configs_name_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *old, *new, *says;
        tt_status status;
    } bad[] = {
        {"\"n_heads\": 5", "\"n_heads\": 3", "n_heads", TT_EFORMAT},
        {"\"n_heads\": 5", "\"n_heads\": 8", "even", TT_EFORMAT},
        {"\"n_heads\": 5", "\"n_heads\": 0", "n_heads", TT_EFORMAT},
        {"\"n_embd\": 40", "\"n_embd\": 50", "Wqkv", TT_EFORMAT},
        {"\"intermediate_size\": 56", "\"intermediate_size\": 60", "mlp.fc", TT_EFORMAT},
        {"\"vocab_size\": 64", "\"vocab_size\": 65", "wte", TT_EFORMAT},
        {"\"n_layers_in_coda\": 2", "\"n_layers_in_coda\": 3", "coda.2", TT_EFORMAT},
        {"\"n_layers_in_recurrent_block\": 4", "\"n_layers_in_recurrent_block\": 0",
         "n_layers_in_recurrent_block", TT_EFORMAT},
        {"\"mean_recurrence\": 8", "\"mean_recurrence\": 0", "mean_recurrence", TT_EFORMAT},
        {"\"mean_recurrence\": 8", "\"mean_recurrence\": 1000000", "mean_recurrence", TT_EFORMAT},
        {"\"tie_embeddings\": true", "\"tie_embeddings\": false", "lm_head.weight", TT_EFORMAT},
        {"\"bias\": false", "\"bias\": true", "bias", TT_EUNSUP},
        {"\"linear\"", "\"add\"", "injection_type", TT_EUNSUP},
        {"\"like-init\"", "\"zero\"", "state_init", TT_EUNSUP},
        {"\"SiLU\"", "\"GELU\"", "nonlin_name", TT_EUNSUP},
        {"\"bias\": false", "\"bias\": false, \"test_time_noise\": 0.1", "test_time_noise",
         TT_EUNSUP},
        {"\"bias\": false", "\"bias\": false, \"eos_token_id\": 64", "token id", TT_EFORMAT},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tt_config *c = NULL;
        tt_model *m = NULL;
        tt_err e = {0};
        tt_status st = open_with(weights, bad[i].old, bad[i].new, TT_WEIGHTS_F32, &c, &m, &e);
        if (st != bad[i].status || !strstr(e.text, bad[i].says))
            fail_msg("%s: status %d, %s", bad[i].new, st, e.text);
        tt_config_close(c);
    }
}

/* --- checkpoints made here --- */

typedef struct {
    char *bytes;
    size_t size;
} image;

static void add_floats(tt_buf *head, tt_buf *data, const char *name, const char *shape, int n,
                       float value)
{
    char line[300];
    size_t begin = data->size;
    for (int i = 0; i < n; i++)
        tt_buf_add(data, (const char *)&value, sizeof value);
    snprintf(line, sizeof line, ",\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":"
             "[%zu,%zu]}", name, shape, begin, data->size);
    tt_buf_puts(head, line);
}

/* A decider that always says sigmoid(z). */
static void add_decider(tt_buf *head, tt_buf *data, float z)
{
    add_floats(head, data, "exit_decider.logits.weight", "40,3", 120, 0);
    add_floats(head, data, "exit_decider.logits.bias", "40", 40, 0);
    add_floats(head, data, "exit_decider.input.weight", "1,80", 80, 0);
    add_floats(head, data, "exit_decider.input.bias", "1", 1, 0);
    add_floats(head, data, "exit_decider.middle.weight", "1,1", 1, 0);
    add_floats(head, data, "exit_decider.middle.bias", "1", 1, 0);
    add_floats(head, data, "exit_decider.norm.weight", "1", 1, 1);
    add_floats(head, data, "exit_decider.norm.bias", "1", 1, 0);
    add_floats(head, data, "exit_decider.output.weight", "1,1", 1, 0);
    add_floats(head, data, "exit_decider.output.bias", "1", 1, z);
}

/* A safetensors file of the golden model's tensors, one left out, matrices as 8-bit rows or as the
 * float32 numbers those stand for; with a decider unless decides is NAN. */
static image rewrite(const char *leave_out, bool narrow, float decides)
{
    tt_buf head = {0}, data = {0};
    tt_tensor t;
    const char *name;
    char line[300];
    tt_buf_puts(&head, "{");
    for (size_t i = 0; (name = tt_weights_name(weights, i, &t)); i++) {
        if (leave_out && !strcmp(name, leave_out))
            continue;
        int64_t n = tt_tensor_count(&t), rows = t.dim[0], k = n / rows;
        const float *from = t.data;
        float *whole = malloc((size_t)n * 4), *scale = malloc((size_t)rows * 4);
        int8_t *small = malloc((size_t)n);
        for (int64_t r = 0; r < rows; r++) {
            float max = 0;
            for (int64_t j = 0; j < k; j++)
                max = fmaxf(max, fabsf(from[r * k + j]));
            scale[r] = max / 127;
            for (int64_t j = 0; j < k; j++) {
                small[r * k + j] = max > 0 ? (int8_t)lrintf(from[r * k + j] / scale[r]) : 0;
                whole[r * k + j] = t.rank == 2 ? (float)small[r * k + j] * scale[r]
                                               : from[r * k + j];
            }
        }
        char shape[64] = "";
        for (int d = 0; d < t.rank; d++)
            snprintf(shape + strlen(shape), sizeof shape - strlen(shape), "%s%lld", d ? "," : "",
                     (long long)t.dim[d]);
        bool small_one = narrow && t.rank == 2;
        size_t begin = data.size, bytes = small_one ? (size_t)n : (size_t)n * 4;
        tt_buf_add(&data, small_one ? (const char *)small : (const char *)whole, bytes);
        snprintf(line, sizeof line, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":"
                 "[%zu,%zu]}", head.size > 1 ? "," : "", name, small_one ? "I8" : "F32", shape,
                 begin, data.size);
        tt_buf_puts(&head, line);
        if (small_one) {
            begin = data.size;
            tt_buf_add(&data, (const char *)scale, (size_t)rows * 4);
            snprintf(line, sizeof line, ",\"%s_scale\":{\"dtype\":\"F32\",\"shape\":[%lld],"
                     "\"data_offsets\":[%zu,%zu]}", name, (long long)rows, begin, data.size);
            tt_buf_puts(&head, line);
        }
        free(whole);
        free(scale);
        free(small);
    }
    if (!isnan(decides))
        add_decider(&head, &data, decides);
    tt_buf_puts(&head, "}");
    while (head.size % 8)
        tt_buf_puts(&head, " ");
    image out = {.size = 8 + head.size + data.size};
    out.bytes = malloc(out.size);
    uint64_t length = head.size;
    memcpy(out.bytes, &length, 8);
    memcpy(out.bytes + 8, head.data, head.size);
    memcpy(out.bytes + 8 + head.size, data.data, data.size);
    tt_buf_free(&head);
    tt_buf_free(&data);
    return out;
}

static void a_missing_tensor_is_named(void **state)
{
    (void)state;
    static const char *const needed[] = {
        "transformer.wte.weight", "transformer.ln_f.weight", "transformer.adapter.weight",
        "transformer.prelude.1.norm_4.weight", "transformer.core_block.3.attn.qk_bias",
        "transformer.coda.0.mlp.proj.weight", "transformer.core_block.0.attn.Wqkv.weight"};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        image f = rewrite(needed[i], false, NAN);
        tt_weights *w;
        tt_config *c;
        tt_model *m;
        tt_err e = {0};
        assert_int_equal(tt_weights_open_memory(&w, f.bytes, f.size, &e), TT_OK);
        tt_status st = open_with(w, "\"bias\"", "\"bias\"", TT_WEIGHTS_F32, &c, &m, &e);
        if (st != TT_EFORMAT || !strstr(e.text, needed[i]))
            fail_msg("without %s: status %d, %s", needed[i], st, e.text);
        tt_config_close(c);
        tt_weights_close(w);
        free(f.bytes);
    }
}

/* --- passes --- */

enum { N = 9, VOCAB = 64 };

static tt_status run_pass(tt_model *m, tt_kv *kv, int32_t begin, int32_t end, tt_depth *depth,
                          float *logits, tt_err *e)
{
    int32_t id[N], column[N];
    tt_want want[N];
    tt_row_stats stats[N];
    int32_t n = end - begin;
    for (int32_t i = 0; i < n; i++) {
        column[i] = begin + i;
        id[i] = (1 + 2 * column[i]) % VOCAB;
        want[i] = (tt_want){.row = i, .uncond = -1, .draw = {.top_p = 1, .target = -1}};
    }
    tt_pass_seq seq = {.rows = n, .see_end = end, .see = TT_SEE_CAUSAL, .kv = kv, .depth = depth};
    tt_pass pass = {.rows = n, .id = id, .position = column, .column = column, .seqs = 1,
                    .seq = &seq, .wants = n, .want = want, .stats = stats, .logits = logits};
    return tt_model_run(m, &pass, e);
}

static void logits_of(const image *f, float *out)
{
    tt_weights *w;
    tt_config *c;
    tt_model *m;
    tt_err e = {0};
    tt_depth d = {.recurrences = 6};
    assert_int_equal(tt_weights_open_memory(&w, f->bytes, f->size, &e), TT_OK);
    if (open_with(w, "\"bias\"", "\"bias\"", TT_WEIGHTS_F32, &c, &m, &e) ||
        run_pass(m, NULL, 0, N, &d, out, &e))
        fail_msg("%s", e.text);
    tt_model_close(m);
    tt_config_close(c);
    tt_weights_close(w);
}

static void eight_bit_rows_are_the_numbers_they_stand_for(void **state)
{
    (void)state;
    float wide[N * VOCAB], narrow[N * VOCAB];
    image a = rewrite(NULL, false, NAN), b = rewrite(NULL, true, NAN);
    logits_of(&a, wide);
    logits_of(&b, narrow);
    for (int i = 0; i < N * VOCAB; i++)
        if (fabsf(wide[i] - narrow[i]) > 1e-4f)
            fail_msg("logit %d is %g with 8-bit rows, %g with their numbers", i, narrow[i],
                     wide[i]);
    free(a.bytes);
    free(b.bytes);
}

static void a_decider_that_came_along_ends_recurrences(void **state)
{
    (void)state;
    static const float says[] = {-3, 3}; /* 0.05, 0.95 */
    for (int i = 0; i < 2; i++) {
        image f = rewrite(NULL, false, says[i]);
        tt_weights *w;
        tt_config *c;
        tt_model *m;
        tt_err e = {0};
        float logits[N * VOCAB];
        tt_exit_check check[7];
        tt_depth d = {.recurrences = 7, .exit = tt_exit_find("learned"), .exit_threshold = 0.9,
                      .exit_first = 1, .exit_every = 2, .check = check};
        assert_int_equal(tt_weights_open_memory(&w, f.bytes, f.size, &e), TT_OK);
        if (open_with(w, "\"bias\"", "\"bias\"", TT_WEIGHTS_F32, &c, &m, &e))
            fail_msg("%s", e.text);
        assert_true(m->info.kinds & TT_KIND_DECIDES);
        if (run_pass(m, NULL, 0, N, &d, logits, &e))
            fail_msg("%s", e.text);
        assert_int_equal(d.ran, i ? 7 : 2);
        assert_int_equal(d.checks, i ? 3 : 1);
        assert_float_equal(check[0].value, 1 / (1 + exp(-(double)says[i])), 1e-6);
        tt_model_close(m);
        tt_config_close(c);
        tt_weights_close(w);
        free(f.bytes);
    }
}

static tt_model *open_golden(tt_config **c)
{
    tt_model *m;
    tt_err e = {0};
    if (open_with(weights, "\"bias\"", "\"bias\"", TT_WEIGHTS_F32, c, &m, &e))
        fail_msg("%s", e.text);
    return m;
}

static void passes_that_cannot_be_are_refused(void **state)
{
    (void)state;
    tt_config *c;
    tt_model *m = open_golden(&c);
    float logits[N * VOCAB], moved[N];
    const tt_depth_row row[N] = {{.from = 0}};
    tt_depth bad[] = {{.recurrences = 0},
                      {.recurrences = 1000000},
                      {.recurrences = 2, .exit = tt_exit_find("learned"), .exit_every = 1},
                      {.recurrences = 2, .exit = tt_exit_find("kl"), .exit_every = 0},
                      {.recurrences = 2, .row = row},
                      {.recurrences = 2, .move = TT_MOVE_STATE}};
    static const char *const says[] = {"0 recurrences", "1000000 recurrences", "decider",
                                       "every 0", "not kept", "checks"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tt_err e = {0};
        tt_status st = run_pass(m, NULL, 0, N, &bad[i], logits, &e);
        if (!st || (i < 5 && !strstr(e.text, says[i])))
            fail_msg("depth %zu: status %d, %s", i, st, e.text);
    }
    tt_depth good = {.recurrences = 2, .move = TT_MOVE_STATE, .moved = moved};
    tt_err e = {0};
    assert_int_equal(run_pass(m, NULL, 0, N, &good, logits, &e), TT_OK);
    for (int i = 0; i < N; i++)
        assert_true(isinf(moved[i])); /* nothing was to be compared */
    tt_model_close(m);
    tt_config_close(c);
}

/* A sequence in two pieces computes what it does in one, with as many entries as recurrences. */
static void a_store_goes_on_where_it_was(void **state)
{
    (void)state;
    tt_config *c;
    tt_model *m = open_golden(&c);
    float whole[N * VOCAB], part[N * VOCAB];
    tt_err e = {0};
    tt_kv *kv;
    tt_depth d = {.recurrences = 5, .init_scale = 1, .seed = 3};
    assert_int_equal(run_pass(m, NULL, 0, N, &d, whole, &e), TT_OK);
    assert_int_equal(tt_kv_open_shared(&kv, m, N, &(tt_kv_sharing){.entries = 5}, &e), TT_OK);
    assert_int_equal(run_pass(m, kv, 0, 4, &d, part, &e), TT_OK);
    assert_int_equal(run_pass(m, kv, 4, N, &d, part + 4 * VOCAB, &e), TT_OK);
    for (int i = 0; i < N * VOCAB; i++)
        if (fabsf(whole[i] - part[i]) > 1e-4f)
            fail_msg("logit %d is %g in pieces, %g in one", i, part[i], whole[i]);
    for (int i = 0; i < N; i++)
        assert_int_equal(kv->depth[i], 5);
    tt_kv_close(kv);
    tt_model_close(m);
    tt_config_close(c);
}

static void entries_are_written_in_turn_or_anchored(void **state)
{
    (void)state;
    tt_kv kv = {.prelude = 2, .core = 4, .sharing = {.entries = 3}};
    static const int32_t ring[] = {0, 1, 2, 0, 1, 2, 0}, anchored[] = {0, 1, 2, 2, 2, 2, 2};
    for (int t = 0; t < 7; t++) {
        kv.sharing.anchored = false;
        assert_int_equal(tt_kv_entry(&kv, t), ring[t]);
        kv.sharing.anchored = true;
        assert_int_equal(tt_kv_entry(&kv, t), anchored[t]);
    }
    bool seen[2 + 12 + 2] = {false};
    for (int64_t layer = 0; layer < 8; layer++) /* every slot belongs to one layer and entry */
        for (int32_t entry = 0; entry < (layer >= 2 && layer < 6 ? 3 : 1); entry++) {
            int64_t slot = tt_kv_slot(&kv, layer, entry);
            assert_in_range(slot, 0, 15);
            assert_false(seen[slot]);
            seen[slot] = true;
        }
}

static void kept_states_go_on(void **state)
{
    (void)state;
    tt_config *c;
    tt_model *m = open_golden(&c);
    float once[N * VOCAB], twice[N * VOCAB], moved[N];
    tt_depth_row begin[N], on[N];
    tt_latents *kept;
    tt_err e = {0};
    for (int i = 0; i < N; i++) {
        begin[i] = (tt_depth_row){.from = -1, .noise_keep = 1, .embed_new = 1, .against = i,
                                  .before = -1};
        on[i] = begin[i];
        on[i].from = i;
    }
    tt_depth d = {.recurrences = 6, .init_scale = 1, .seed = 5};
    assert_int_equal(run_pass(m, NULL, 0, N, &d, once, &e), TT_OK);
    assert_int_equal(tt_latents_open(&kept, m, &(tt_latent_size){.columns = N}, &e), TT_OK);
    d.recurrences = 3;
    d.latents = kept;
    d.row = begin;
    assert_int_equal(run_pass(m, NULL, 0, N, &d, twice, &e), TT_OK);
    d.row = on;
    d.move = TT_MOVE_STATE;
    d.moved = moved;
    assert_int_equal(run_pass(m, NULL, 0, N, &d, twice, &e), TT_OK);
    for (int i = 0; i < N * VOCAB; i++)
        if (fabsf(once[i] - twice[i]) > 1e-4f)
            fail_msg("logit %d is %g after 3 and 3 recurrences, %g after 6", i, twice[i], once[i]);
    for (int i = 0; i < N; i++)
        assert_true(moved[i] > 0 && moved[i] < 0.5f);
    tt_latents_close(kept);
    tt_model_close(m);
    tt_config_close(c);
}

/* --- the decider --- */

/* width 2, 3 logits, inner width 2, one block of width 1, by hand. */
static void a_decider_computes_what_it_says(void **state)
{
    (void)state;
    static const struct {
        const char *name, *shape;
        float value[8];
        int n;
    } part[] = {
        {"logits.weight", "2,3", {1, 0, 0, 0, 1, -1}, 6},
        {"logits.bias", "2", {0.5f, 0}, 2},
        {"input.weight", "2,4", {1, 0, 0, 1, 0, 1, 1, 0}, 8},
        {"input.bias", "2", {0, 1}, 2},
        {"middle.weight", "2,2", {1, 0, 1, 1}, 4},
        {"middle.bias", "2", {0, -1}, 2},
        {"blocks.0.norm.weight", "2", {2, 1}, 2},
        {"blocks.0.norm.bias", "2", {0, 0.25f}, 2},
        {"blocks.0.up.weight", "1,2", {1, 2}, 2},
        {"blocks.0.up.bias", "1", {0.1f}, 1},
        {"blocks.0.down.weight", "2,1", {1, -1}, 2},
        {"blocks.0.down.bias", "2", {0, 0.5f}, 2},
        {"norm.weight", "2", {1, 1}, 2},
        {"norm.bias", "2", {0, 0}, 2},
        {"output.weight", "1,2", {1, -0.5f}, 2},
        {"output.bias", "1", {0.2f}, 1},
    };
    char head[4096] = "{", bytes[8192];
    float data[64];
    size_t at = 0;
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        snprintf(head + strlen(head), sizeof head - strlen(head),
                 "%s\"exit_decider.%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":"
                 "[%zu,%zu]}", i ? "," : "", part[i].name, part[i].shape, at * 4,
                 (at + (size_t)part[i].n) * 4);
        memcpy(data + at, part[i].value, (size_t)part[i].n * 4);
        at += (size_t)part[i].n;
    }
    strcat(head, "}");
    while (strlen(head) % 8)
        strcat(head, " ");
    uint64_t length = strlen(head);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, head, length);
    memcpy(bytes + 8 + length, data, at * 4);
    tt_weights *w;
    tt_decider *d;
    tt_err e = {0};
    if (tt_weights_open_memory(&w, bytes, 8 + length + at * 4, &e) ||
        tt_decider_open(&d, w, 2, &e))
        fail_msg("%s", e.text);
    assert_true(tt_decider_in(w));
    const float latent[] = {0.5f, -1}, logits[] = {-2, 3, 1, 0.5f};
    /* The largest: 3, 1, 0.5. b = (3.5, 0.5); input (1, 2.5 + 1) -> middle (1, 3.5) */
    double a = 0.5 + 0.5, b = -1 + 3.5 + 1, x[2] = {a, a + b - 1};
    double mean = (x[0] + x[1]) / 2, dev = sqrt((x[0] - mean) * (x[0] - mean) + 1e-5);
    double h[2] = {(x[0] - mean) / dev * 2, (x[1] - mean) / dev + 0.25};
    double u = h[0] + 2 * h[1] + 0.1;
    u = 0.5 * u * (1 + erf(u / sqrt(2)));
    x[0] += u;
    x[1] += 0.5 - u;
    mean = (x[0] + x[1]) / 2;
    dev = sqrt((x[0] - mean) * (x[0] - mean) + 1e-5);
    double z = (x[0] - mean) / dev - 0.5 * (x[1] - mean) / dev + 0.2;
    assert_float_equal(tt_decider_continue(d, latent, logits, 4), 1 / (1 + exp(-z)), 1e-6);
    tt_decider_close(d);
    tt_weights_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_configs_name_what_is_wrong),
        cmocka_unit_test(a_missing_tensor_is_named),
        cmocka_unit_test(eight_bit_rows_are_the_numbers_they_stand_for),
        cmocka_unit_test(passes_that_cannot_be_are_refused),
        cmocka_unit_test(a_store_goes_on_where_it_was),
        cmocka_unit_test(entries_are_written_in_turn_or_anchored),
        cmocka_unit_test(kept_states_go_on),
        cmocka_unit_test(a_decider_computes_what_it_says),
        cmocka_unit_test(a_decider_that_came_along_ends_recurrences),
    };
    return cmocka_run_group_tests_name("raven", tests, setup, teardown);
}
