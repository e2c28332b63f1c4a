/* LLaDA-MoE, LLaDA2 and MDLM: what can go wrong beyond their forwards, which the golden replay
 * checks: configs that contradict themselves or the weights, routers that cannot choose, variants
 * nobody wrote, narrow weights that drift, sequences of one pass that share a noise level. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "models/kv.h"

typedef struct {
    const char *folder;
    char text[4096]; /* of config.json */
    tt_weights *weights;
} source;

enum { MOE, BLOCKS, MDLM, SOURCES };

typedef struct {
    tt_stream *stream;
    source from[SOURCES];
} world;

static int setup(void **state)
{
    static world w = {.from = {{.folder = "tests/golden/masked-diffusion/llada_moe"},
                               {.folder = "tests/golden/masked-diffusion/llada2_moe"},
                               {.folder = "tests/golden/masked-diffusion/mdlm"}}};
    tt_err e;
    if (tt_stream_open(&w.stream, "plain", 1, &e))
        return -1;
    for (int i = 0; i < SOURCES; i++) {
        char path[200];
        snprintf(path, sizeof path, "%s/config.json", w.from[i].folder);
        FILE *f = fopen(path, "rb");
        if (!f || tt_weights_open(&w.from[i].weights, w.from[i].folder, &e))
            return -1;
        w.from[i].text[fread(w.from[i].text, 1, sizeof w.from[i].text - 1, f)] = '\0';
        fclose(f);
    }
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    world *w = *state;
    for (int i = 0; i < SOURCES; i++)
        tt_weights_close(w->from[i].weights);
    tt_stream_close(w->stream);
    return 0;
}

/* Opens the weights with a part of the config replaced. */
static tt_status open_with(const world *w, int which, const char *old, const char *new,
                           tt_weights_mode mode, tt_config **config, tt_model **m, tt_err *e)
{
    static char text[5000];
    const source *s = &w->from[which];
    const char *at = strstr(s->text, old);
    if (!at)
        fail_msg("%s has no %s", s->folder, old);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - s->text), s->text, new, at + strlen(old));
    *m = NULL;
    tt_status st = tt_config_open_text(config, text, strlen(text), e);
    if (st)
        return st;
    const tt_model_def *def = tt_model_find(tt_config_architecture(*config));
    return def->open(m, w->stream, s->weights, *config, mode, NULL, NULL, e);
}

static void bad_configs_name_what_is_wrong(void **state)
{
    const world *w = *state;
    static const struct {
        int which;
        const char *old, *new, *says;
        tt_status status;
    } bad[] = {
        {MOE, "\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 9", "9 experts", TT_EFORMAT},
        {MOE, "\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 0", "num_experts_per_tok",
         TT_EFORMAT},
        {MOE, "\"num_experts\": 8", "\"num_experts\": 7", "[8, 64], expected [7, 64]", TT_EFORMAT},
        {MOE, "\"num_experts\": 8", "\"num_experts\": 9", "mlp.gate", TT_EFORMAT},
        {MOE, "\"num_experts\": 8", "\"num_experts\": 1e9", "num_experts", TT_EFORMAT},
        {MOE, "\"expert_intermediate_size\": 48", "\"expert_intermediate_size\": 47",
         "experts.0.gate_proj", TT_EFORMAT},
        {MOE, "\"moe_layer_freq\": [\n    1,", "\"moe_layer_freq\": [\n    0,",
         "layers.0.mlp.gate_proj", TT_EFORMAT},
        {MOE, "\"moe_layer_freq\": [\n    1,", "\"moe_layer_freq\": [\n    2,", "moe_layer_freq",
         TT_EFORMAT},
        {MOE, "\"moe_layer_freq\": [\n    1,\n    1\n  ]", "\"moe_layer_freq\": 1",
         "moe_layer_freq", TT_EFORMAT},
        {MOE, "\"partial_rotary_factor\": 1", "\"partial_rotary_factor\": 0.07",
         "partial_rotary_factor", TT_EFORMAT},
        {MOE, "\"softmax\"", "\"sigmoid\"", "moe_router_score_function", TT_EUNSUP},
        {MOE, "\"moe_router_enable_expert_bias\": false", "\"moe_router_enable_expert_bias\": true",
         "moe_router_enable_expert_bias", TT_EUNSUP},
        {MOE, "\"router_num_group\": null", "\"router_num_group\": 4", "router_num_group",
         TT_EUNSUP},
        {MOE, "\"shared_expert_intermediate_size\": null",
         "\"shared_expert_intermediate_size\": 64", "shared_expert_intermediate_size", TT_EUNSUP},
        {MOE, "\"vocab_size\": 304", "\"vocab_size\": 298", "token id", TT_EFORMAT},
        {MOE, "\"num_key_value_heads\": 4", "\"num_key_value_heads\": 3", "num_key_value_heads",
         TT_EFORMAT},
        {BLOCKS, "\"n_group\": 4", "\"n_group\": 3", "do not split into 3 groups", TT_EFORMAT},
        {BLOCKS, "\"topk_group\": 2", "\"topk_group\": 5", "groups", TT_EFORMAT},
        {BLOCKS, "\"topk_group\": 2", "\"topk_group\": 0", "topk_group", TT_EFORMAT},
        {BLOCKS, "\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 5", "only 4", TT_EFORMAT},
        {BLOCKS, "\"num_experts\": 8", "\"num_experts\": 16", "mlp.gate", TT_EFORMAT},
        {BLOCKS, "\"num_shared_experts\": 1", "\"num_shared_experts\": 2", "shared_experts",
         TT_EFORMAT},
        {BLOCKS, "\"first_k_dense_replace\": 1", "\"first_k_dense_replace\": 0", "layers.0.mlp",
         TT_EFORMAT},
        {BLOCKS, "\"first_k_dense_replace\": 1", "\"first_k_dense_replace\": 2",
         "layers.1.mlp.gate_proj", TT_EFORMAT},
        {BLOCKS, "\"partial_rotary_factor\": 0.5", "\"partial_rotary_factor\": 0.07",
         "partial_rotary_factor", TT_EFORMAT},
        {BLOCKS, "\"partial_rotary_factor\": 0.5", "\"partial_rotary_factor\": 1.5",
         "partial_rotary_factor", TT_EFORMAT},
        {BLOCKS, "\"head_dim\": 16", "\"head_dim\": 20", "query_key_value", TT_EFORMAT},
        {BLOCKS, "\"use_qkv_bias\": false", "\"use_qkv_bias\": true", "use_qkv_bias", TT_EUNSUP},
        {BLOCKS, "\"rope_scaling\": null", "\"rope_scaling\": {}", "rope_scaling", TT_EUNSUP},
        {BLOCKS, "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4", "layers.3", TT_EFORMAT},
        {MDLM, "\"cond_dim\": 32", "\"cond_dim\": 31", "sigma_map", TT_EFORMAT},
        {MDLM, "\"cond_dim\": 32", "\"cond_dim\": 1e6", "cond_dim", TT_EFORMAT},
        {MDLM, "\"n_heads\": 4", "\"n_heads\": 5", "n_heads", TT_EFORMAT},
        {MDLM, "\"n_heads\": 4", "\"n_heads\": 64", "width 1", TT_EFORMAT},
        {MDLM, "\"n_blocks\": 3", "\"n_blocks\": 4", "blocks.3", TT_EFORMAT},
        {MDLM, "\"hidden_dim\": 64", "\"hidden_dim\": 56", "expected", TT_EFORMAT},
        {MDLM, "\"vocab_size\": 257", "\"vocab_size\": 256", "[257, 64], expected [256, 64]",
         TT_EFORMAT},
        {MDLM, "\"dropout\": 0.1", "\"mask_token_id\": 257", "token id", TT_EFORMAT},
        {MDLM, "\"time_conditioning\": false", "\"time_conditioning\": 1", "time_conditioning",
         TT_EFORMAT},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tt_err e = {0};
        tt_config *c = NULL;
        tt_model *m;
        tt_status s =
            open_with(w, bad[i].which, bad[i].old, bad[i].new, TT_WEIGHTS_F32, &c, &m, &e);
        if (s != bad[i].status || !strstr(e.text, bad[i].says))
            fail_msg("%s: status %d, \"%s\"", bad[i].new, s, e.text);
        tt_model_close(m);
        tt_config_close(c);
    }
}

static void every_key_of_the_released_configs_is_understood(void **state)
{
    const world *w = *state;
    for (int i = 0; i < SOURCES; i++) {
        tt_err e = {0};
        tt_config *c;
        tt_model *m;
        tt_buf unread = {0};
        if (open_with(w, i, "{", "{", TT_WEIGHTS_F32, &c, &m, &e))
            fail_msg("%s", e.text);
        if (tt_config_unread(c, &unread))
            fail_msg("%s: unread %s", w->from[i].folder, tt_buf_text(&unread));
        tt_buf_free(&unread);
        tt_model_close(m);
        tt_config_close(c);
    }
}

static void a_config_may_name_the_mask(void **state)
{
    const world *w = *state;
    tt_err e;
    tt_config *c;
    tt_model *m;
    assert_int_equal(open_with(w, BLOCKS, "{", "{", TT_WEIGHTS_F32, &c, &m, &e), TT_OK);
    assert_int_equal(m->info.mask_id, -1);
    tt_model_close(m);
    tt_config_close(c);
    assert_int_equal(
        open_with(w, BLOCKS, "{", "{\"mask_token_id\": 301,", TT_WEIGHTS_F32, &c, &m, &e), TT_OK);
    assert_int_equal(m->info.mask_id, 301);
    tt_model_close(m);
    tt_config_close(c);
    assert_int_equal(open_with(w, MDLM, "{", "{", TT_WEIGHTS_F32, &c, &m, &e), TT_OK);
    assert_int_equal(m->info.mask_id, 256); /* the last row */
    tt_model_close(m);
    tt_config_close(c);
}

/* --- passes --- */

enum { N = 16 };

typedef struct {
    int32_t id[2 * N], column[2 * N];
    tt_pass_seq seq[2];
    tt_want want[2 * N];
    tt_row_stats stats[2 * N];
    tt_pass pass;
} example;

static void make_pass(example *x, int seqs, tt_see see)
{
    *x = (example){0};
    for (int i = 0; i < seqs * N; i++) {
        x->id[i] = i % N * 11 % 250;
        x->column[i] = i % N;
        x->want[i] = (tt_want){.row = i, .uncond = -1, .draw = {.top_p = 1, .target = -1}};
    }
    for (int i = 0; i < seqs; i++)
        x->seq[i] = (tt_pass_seq){.row = i * N, .rows = N, .see_end = N, .see = see, .block = 8};
    x->pass = (tt_pass){.rows = seqs * N,
                        .id = x->id,
                        .position = x->column,
                        .column = x->column,
                        .seqs = seqs,
                        .seq = x->seq,
                        .wants = seqs * N,
                        .want = x->want,
                        .stats = x->stats};
}

static void narrow_weights_stay_close(void **state)
{
    const world *w = *state;
    static const tt_weights_mode modes[] = {TT_WEIGHTS_BF16, TT_WEIGHTS_INT8};
    for (int i = 0; i < SOURCES; i++) {
        tt_see see = i == BLOCKS ? TT_SEE_BLOCK : TT_SEE_ALL;
        example full, narrow;
        tt_err e;
        tt_config *c;
        tt_model *m;
        make_pass(&full, 1, see);
        assert_int_equal(open_with(w, i, "{", "{", TT_WEIGHTS_F32, &c, &m, &e), TT_OK);
        assert_int_equal(tt_model_run(m, &full.pass, &e), TT_OK);
        tt_model_close(m);
        tt_config_close(c);
        for (int k = 0; k < 2; k++) {
            make_pass(&narrow, 1, see);
            assert_int_equal(open_with(w, i, "{", "{", modes[k], &c, &m, &e), TT_OK);
            assert_int_equal(tt_model_run(m, &narrow.pass, &e), TT_OK);
            double off = 0, size = 0;
            for (int r = 0; r < N; r++) {
                double a = narrow.stats[r].max_logit, b = full.stats[r].max_logit;
                off += (a - b) * (a - b);
                size += b * b;
            }
            if (sqrt(off / size) > 0.1)
                fail_msg("%s, mode %d: largest logits are off by %g of their size",
                         w->from[i].folder, modes[k], sqrt(off / size));
            tt_model_close(m);
            tt_config_close(c);
        }
    }
}

static void a_sequence_is_the_same_alone_and_in_company(void **state)
{
    const world *w = *state;
    for (int i = 0; i < SOURCES; i++) {
        tt_see see = i == BLOCKS ? TT_SEE_BLOCK : TT_SEE_ALL;
        example alone, both;
        tt_err e;
        tt_config *c;
        tt_model *m;
        make_pass(&alone, 1, see);
        make_pass(&both, 2, see);
        for (int r = 0; r < N; r++)
            both.id[r] = r * 5; /* another first sequence */
        assert_int_equal(open_with(w, i, "{", "{", TT_WEIGHTS_F32, &c, &m, &e), TT_OK);
        assert_int_equal(tt_model_run(m, &alone.pass, &e), TT_OK);
        assert_int_equal(tt_model_run(m, &both.pass, &e), TT_OK);
        assert_memory_equal(alone.stats, both.stats + N, sizeof *alone.stats * N);
        tt_model_close(m);
        tt_config_close(c);
    }
}

static void noise_levels_belong_to_their_sequences(void **state)
{
    const world *w = *state;
    example both, first, second;
    tt_err e;
    tt_config *c;
    tt_model *m;
    assert_int_equal(open_with(w, MDLM, "\"time_conditioning\": false",
                               "\"time_conditioning\": true", TT_WEIGHTS_F32, &c, &m, &e),
                     TT_OK);
    assert_true(m->info.kinds & TT_KIND_TIMED);
    make_pass(&both, 2, TT_SEE_ALL);
    make_pass(&first, 1, TT_SEE_ALL);
    make_pass(&second, 1, TT_SEE_ALL);
    both.seq[0].sigma = first.seq[0].sigma = 0.3f;
    both.seq[1].sigma = second.seq[0].sigma = 4;
    both.want[2].uncond = N + 2; /* guidance mixes rows of different levels */
    both.want[2].cfg_scale = 0;
    assert_int_equal(tt_model_run(m, &both.pass, &e), TT_OK);
    assert_int_equal(tt_model_run(m, &first.pass, &e), TT_OK);
    assert_int_equal(tt_model_run(m, &second.pass, &e), TT_OK);
    for (int r = 0; r < N; r++) { /* mixing with scale 0 rounds the last bit */
        assert_float_equal(both.stats[r].lse, first.stats[r].lse, 1e-4);
        assert_memory_equal(&both.stats[N + r], &second.stats[r], sizeof *second.stats);
    }
    assert_true(fabsf(first.stats[0].lse - second.stats[0].lse) > 1e-3f);
    tt_model_close(m);
    tt_config_close(c);
}

/* Rows of a block depend on nothing behind it; fed block by block over a store, the results are
 * those of one pass. */
static void a_store_of_finished_blocks_is_exact(void **state)
{
    const world *w = *state;
    example whole, part;
    tt_err e;
    tt_config *c;
    tt_model *m;
    tt_kv *kv;
    assert_int_equal(open_with(w, BLOCKS, "{", "{", TT_WEIGHTS_F32, &c, &m, &e), TT_OK);
    make_pass(&whole, 1, TT_SEE_BLOCK);
    assert_int_equal(tt_model_run(m, &whole.pass, &e), TT_OK);
    assert_int_equal(tt_kv_open(&kv, m, N, &e), TT_OK);
    for (int b = 0; b < 2; b++) {
        make_pass(&part, 1, TT_SEE_BLOCK);
        part.seq[0].rows = part.pass.rows = part.pass.wants = 8;
        part.seq[0].see_end = 8 * (b + 1);
        part.seq[0].kv = kv;
        part.pass.id = part.id + 8 * b;
        part.pass.position = part.pass.column = part.column + 8 * b;
        assert_int_equal(tt_model_run(m, &part.pass, &e), TT_OK);
        assert_memory_equal(part.stats, whole.stats + 8 * b, sizeof *part.stats * 8);
    }
    tt_kv_close(kv);
    tt_model_close(m);
    tt_config_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_configs_name_what_is_wrong),
        cmocka_unit_test(every_key_of_the_released_configs_is_understood),
        cmocka_unit_test(a_config_may_name_the_mask),
        cmocka_unit_test(narrow_weights_stay_close),
        cmocka_unit_test(a_sequence_is_the_same_alone_and_in_company),
        cmocka_unit_test(noise_levels_belong_to_their_sequences),
        cmocka_unit_test(a_store_of_finished_blocks_is_exact),
    };
    return cmocka_run_group_tests_name("families", tests, setup, teardown);
}
