/* What can go wrong: a score that is not the model's, or changes with its company or its mask; a
 * bound that is biased; vectors of the wrong rows; steering that the sampler never hears of. The
 * model is small and random, so nothing is near-certain. */
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

#include "samplers/read.h"
#include "server/engine.h"

#define MASKED "tests/golden/masked-diffusion/llada"
#define SHIFTED "tests/golden/masked-diffusion/dream"
#define CAUSAL "tests/golden/masked-diffusion/guided/guide"
#define BLOCKS "tests/golden/masked-diffusion/llada2_moe"
#define MDLM "tests/golden/masked-diffusion/mdlm"

enum { COLUMNS = 20, PROMPT = 6 };

typedef struct {
    tt_engine *engine;
    const tt_served *masked, *shifted, *causal, *blocks, *mdlm;
} world;

/* The folder of a checkpoint that leaves its mask to others, with the mask named. */
static const char *with_mask(const char *from, int mask)
{
    static char folder[] = "/tmp/tutti-read-XXXXXX";
    static const char *const file[] = {"config.json", "model.safetensors"};
    char path[300], target[400], here[200];
    if (!mkdtemp(folder) || !getcwd(here, sizeof here))
        return "";
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, file[i]);
        snprintf(target, sizeof target, "%s/%s/%s", here, from, file[i]);
        if (symlink(target, path))
            return "";
    }
    snprintf(path, sizeof path, "%s/generation_config.json", folder);
    FILE *f = fopen(path, "w");
    if (f) {
        fprintf(f, "{\"mask_token_id\": %d, \"block_length\": 8}", mask);
        fclose(f);
    }
    return folder;
}

static void remove_folder(const char *folder)
{
    static const char *const file[] = {"config.json", "model.safetensors",
                                       "generation_config.json"};
    char path[300];
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, file[i]);
        unlink(path);
    }
    rmdir(folder);
}

static int setup(void **state)
{
    static world w;
    tt_err e;
    const char *blocks = with_mask(BLOCKS, 301);
    if (tt_engine_open(&w.engine, &(tt_engine_options){.device = "plain"}, &e) ||
        tt_engine_add_model(w.engine, "masked", MASKED, TT_WEIGHTS_F32, NULL, NULL, &e) ||
        tt_engine_add_model(w.engine, "shifted", SHIFTED, TT_WEIGHTS_F32, NULL, NULL, &e) ||
        tt_engine_add_model(w.engine, "causal", CAUSAL, TT_WEIGHTS_F32, NULL, NULL, &e) ||
        tt_engine_add_model(w.engine, "blocks", blocks, TT_WEIGHTS_F32, NULL, NULL, &e) ||
        tt_engine_add_model(w.engine, "mdlm", MDLM, TT_WEIGHTS_F32, NULL, NULL, &e)) {
        print_error("%s\n", e.text);
        return -1;
    }
    w.masked = tt_engine_find(w.engine, "masked");
    w.shifted = tt_engine_find(w.engine, "shifted");
    w.causal = tt_engine_find(w.engine, "causal");
    w.blocks = tt_engine_find(w.engine, "blocks");
    w.mdlm = tt_engine_find(w.engine, "mdlm");
    remove_folder(blocks); /* mapped by now */
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    tt_engine_close(((world *)*state)->engine);
    return 0;
}

static int32_t ids[COLUMNS], draft[COLUMNS];
static uint8_t open_at[COLUMNS];

/* A text whose columns [from, to) are to be scored. */
static tt_job_spec to_score(const tt_served *m, const tt_sampler *s, int from, int to)
{
    for (int c = 0; c < COLUMNS; c++) {
        ids[c] = (c * 37 + 11) % 90;
        open_at[c] = c >= from && c < to;
        draft[c] = open_at[c] ? ids[c] : -1;
    }
    tt_job_spec j = {.model = m, .sampler = s, .id = ids, .open = open_at, .columns = COLUMNS,
                     .samples = 1, .seed = 3, .draft = draft};
    tt_params_default(&j.params);
    j.params.block_length = m->defaults.block_length;
    if (s == &tt_score_chain || s == &tt_score_chain_blocks)
        j.samples = to - from;
    return j;
}

static tt_job *submit(const world *w, const tt_job_spec *s)
{
    tt_job *j;
    tt_err e = {0};
    if (tt_engine_submit(w->engine, s, &j, NULL, &e))
        fail_msg("%s: %s", e.param, e.text);
    return j;
}

static void wait_end(tt_job *j)
{
    static const uint64_t seen[1024];
    while (!tt_job_finished(j))
        tt_job_wait(j, seen, 50);
}

/* The finished view of a sample; the caller frees it. */
static tt_view view_of(tt_job *j, int sample)
{
    tt_view v = {0};
    assert_true(tt_job_view(j, sample, &v));
    if (v.finish == TT_FINISH_ERROR)
        fail_msg("%s", v.error.text);
    return v;
}

/* Runs a scoring job to its end; logprob[sample][column], 0 where not scored. */
static void scores(const world *w, const tt_job_spec *s, double (*logprob)[COLUMNS])
{
    tt_job *j = submit(w, s);
    wait_end(j);
    for (int i = 0; i < s->samples; i++) {
        tt_view v = view_of(j, i);
        for (int c = 0; c < COLUMNS; c++)
            logprob[i][c] = v.step[c] ? (double)v.logprob[c] : 0;
        tt_view_free(&v);
    }
    tt_job_release(j);
}

/* ln p of one column's token, with columns [from, to) masked as well. */
static double one(const world *w, int column, int from, int to)
{
    double got[1][COLUMNS];
    tt_job_spec s = to_score(w->masked, &tt_score_chain, column, column + 1);
    for (int c = from; c < to; c++)
        open_at[c] = 1; /* without a draft */
    scores(w, &s, got);
    return got[0][column];
}

static void the_chain_is_the_product_of_its_factors(void **state)
{
    const world *w = *state;
    double got[4][COLUMNS];
    tt_job_spec s = to_score(w->masked, &tt_score_chain, 8, 12);
    scores(w, &s, got);
    for (int i = 0; i < 4; i++) {
        assert_true(got[i][8 + i] < 0);
        assert_float_equal(got[i][8 + i], one(w, 8 + i, 8 + i, 12), 1e-5);
    }
}

static void the_bound_is_the_mean_over_orders(void **state)
{
    const world *w = *state;
    enum { N = 1000 };
    static double got[N][COLUMNS];
    double both[2] = {one(w, 8, 8, 10), one(w, 9, 8, 10)};
    double alone[2] = {one(w, 8, 8, 9), one(w, 9, 9, 10)};
    double exact = 0.5 * (both[0] + alone[1]) + 0.5 * (both[1] + alone[0]);
    tt_job_spec s = to_score(w->masked, &tt_score_bound, 8, 10);
    s.samples = N;
    scores(w, &s, got);
    double sum = 0;
    int masked[3] = {0};
    for (int i = 0; i < N; i++) {
        int l = (got[i][8] != 0) + (got[i][9] != 0);
        assert_int_equal(l, tt_score_masked(3, i, N, 2));
        masked[l]++;
        sum += 2.0 / l * (got[i][8] + got[i][9]) / N;
    }
    assert_in_range(masked[1], N / 2 - 1, N / 2 + 1);
    /* All that is random is which of the two is masked where only one is. */
    double error = 0.5 * fabs(alone[0] - alone[1]) / sqrt(N / 2);
    assert_float_equal(sum, exact, 3 * error);
}

static void scores_do_not_depend_on_company(void **state)
{
    const world *w = *state;
    static double alone[16][COLUMNS], beside[16][COLUMNS];
    tt_job_spec s = to_score(w->masked, &tt_score_bound, 2, 18);
    s.samples = 16;
    scores(w, &s, alone);
    tt_job *other[6];
    for (int i = 0; i < 6; i++) {
        tt_job_spec o = to_score(w->masked, NULL, PROMPT, COLUMNS - i);
        o.draft = NULL;
        o.prompt = PROMPT;
        o.params.temperature = 0.5;
        o.params.cfg_scale = i % 2;
        other[i] = submit(w, &o);
    }
    s = to_score(w->masked, &tt_score_bound, 2, 18);
    s.samples = 16;
    scores(w, &s, beside);
    assert_memory_equal(alone, beside, sizeof alone);
    s.seed = 4;
    scores(w, &s, beside);
    assert_memory_not_equal(alone, beside, sizeof alone);
    for (int i = 0; i < 6; i++)
        tt_job_release(other[i]);
}

/* The guide's own head: the row before a column predicts it, and nothing behind matters. */
static void a_causal_score_looks_back_only(void **state)
{
    const world *w = *state;
    double all[1][COLUMNS], part[1][COLUMNS];
    tt_job_spec s = to_score(w->causal, &tt_score_causal, 1, COLUMNS);
    scores(w, &s, all);
    for (int c = 1; c < COLUMNS; c++)
        assert_true(all[0][c] < 0);
    s = to_score(w->causal, &tt_score_causal, 1, COLUMNS);
    for (int c = 12; c < COLUMNS; c++)
        draft[c] = ids[c] = 5;
    scores(w, &s, part);
    assert_memory_equal(all[0], part[0], 12 * sizeof(double));
    assert_true(all[0][13] != part[0][13]);
    s = to_score(w->causal, &tt_score_causal, 0, COLUMNS);
    tt_job *j;
    tt_err e;
    assert_int_equal(tt_engine_submit(w->engine, &s, &j, NULL, &e), TT_EINVAL);
}

/* Blocks of 8 columns: what stands in a later block cannot change a score. */
static void a_block_causal_score_sees_no_later_block(void **state)
{
    const world *w = *state;
    static double all[16][COLUMNS], part[16][COLUMNS];
    int block = w->blocks->defaults.block_length, last = (COLUMNS - 1) / block * block;
    assert_in_range(last, 1, COLUMNS - 1);
    tt_job_spec s = to_score(w->blocks, &tt_score_chain_blocks, 2, 18);
    scores(w, &s, all);
    s = to_score(w->blocks, &tt_score_chain_blocks, 2, 18);
    for (int c = last; c < COLUMNS; c++) {
        ids[c] = 5;
        draft[c] = draft[c] < 0 ? -1 : 5;
    }
    scores(w, &s, part);
    for (int i = 0; i < 16; i++) {
        assert_true(all[i][2 + i] < 0);
        if (2 + i < last)
            assert_true(all[i][2 + i] == part[i][2 + i]);
    }
    tt_job *j;
    tt_err e;
    s = to_score(w->blocks, &tt_score_bound, 2, 18); /* its masks are not what it was trained on */
    assert_int_equal(tt_engine_submit(w->engine, &s, &j, NULL, &e), TT_EINVAL);
}

static void other_families_score_and_encode(void **state)
{
    const world *w = *state;
    double got[1][COLUMNS];
    tt_job_spec s = to_score(w->mdlm, &tt_score_bound, 2, 18);
    scores(w, &s, got);
    int scored = 0;
    for (int c = 0; c < COLUMNS; c++)
        scored += got[0][c] < 0;
    assert_int_equal(scored, tt_score_masked(3, 0, 1, 16));
}

/* --- vectors --- */

static tt_job_spec to_encode(const tt_served *m, tt_pooling pool, int words)
{
    tt_job_spec s = to_score(m, tt_encode_for(m->info.kinds), COLUMNS - 2 - words, COLUMNS - 2);
    s.draft = NULL;
    s.encoding.pool = pool;
    return s;
}

static tt_view vectors(const world *w, const tt_job_spec *s)
{
    tt_job *j = submit(w, s);
    wait_end(j);
    tt_view v = view_of(j, 0);
    tt_job_release(j);
    return v;
}

static void the_last_state_is_the_last_of_them(void **state)
{
    const world *w = *state;
    const tt_served *models[] = {w->masked, w->shifted, w->causal, w->blocks, w->mdlm};
    for (int i = 0; i < 5; i++) {
        tt_job_spec s = to_encode(models[i], TT_POOL_MEAN, 0);
        tt_view mean = vectors(w, &s);
        s = to_encode(models[i], TT_POOL_LAST, 0);
        tt_view last = vectors(w, &s);
        assert_int_equal(mean.features.vectors, 1);
        assert_int_equal(last.features.width, models[i]->info.width);
        assert_memory_not_equal(mean.features.vector, last.features.vector,
                                (size_t)last.features.width * sizeof(float));
        tt_view_free(&mean);
        tt_view_free(&last);
    }
}

/* A causal model's last state does not see what is appended; a mean over one column is its state.
 */
static void a_mean_over_one_column_is_that_column(void **state)
{
    const world *w = *state;
    tt_job_spec s = to_encode(w->causal, TT_POOL_LAST, 0);
    s.columns = 1;
    tt_view last = vectors(w, &s);
    s = to_encode(w->causal, TT_POOL_MEAN, 0);
    s.columns = 1;
    tt_view mean = vectors(w, &s);
    assert_memory_equal(mean.features.vector, last.features.vector,
                        (size_t)last.features.width * sizeof(float));
    tt_view_free(&mean);
    tt_view_free(&last);
}

static void words_give_states_tokens_and_logits(void **state)
{
    const world *w = *state;
    enum { TERMS = 45, WORDS = 3 };
    int32_t term[TERMS];
    for (int i = 0; i < TERMS; i++)
        term[i] = 5 * i;
    const tt_served *models[] = {w->masked, w->shifted, w->blocks, w->mdlm};
    for (int m = 0; m < 4; m++) {
        tt_job_spec s = to_encode(models[m], TT_POOL_OPEN, WORDS);
        s.encoding.term = term;
        s.encoding.terms = TERMS;
        tt_view v = vectors(w, &s);
        const tt_features *f = &v.features;
        assert_int_equal(f->vectors, WORDS);
        assert_int_equal(f->terms, TERMS);
        for (int k = 0; k < WORDS; k++) {
            int32_t best = v.id[COLUMNS - 2 - WORDS + k];
            float most = -INFINITY, of_best = NAN;
            for (int t = 0; t < TERMS; t++) {
                float x = f->logit[k * TERMS + t];
                assert_true(isfinite(x) && x != 0);
                most = fmaxf(most, x);
                of_best = term[t] == best ? x : of_best;
            }
            if (!isnan(of_best)) /* the most likely token is a term: no other is above it */
                assert_true(of_best == most);
        }
        tt_view_free(&v);
    }
}

static void vectors_do_not_depend_on_company(void **state)
{
    const world *w = *state;
    tt_job_spec s = to_encode(w->masked, TT_POOL_OPEN, 4);
    tt_view alone = vectors(w, &s);
    tt_job *other[8];
    for (int i = 0; i < 8; i++) {
        tt_job_spec o = i % 2 ? to_encode(w->masked, TT_POOL_MEAN, 0)
                              : to_score(w->masked, &tt_score_bound, 2, 18);
        o.samples = i % 2 ? 1 : 8;
        other[i] = submit(w, &o);
    }
    s = to_encode(w->masked, TT_POOL_OPEN, 4);
    tt_view beside = vectors(w, &s);
    assert_memory_equal(alone.features.vector, beside.features.vector,
                        4 * (size_t)alone.features.width * sizeof(float));
    for (int i = 0; i < 8; i++)
        tt_job_release(other[i]);
    tt_view_free(&alone);
    tt_view_free(&beside);
}

/* --- steering --- */

static tt_job_spec to_fill(const world *w)
{
    tt_job_spec s = to_score(w->masked, tt_sampler_find("low_confidence"), PROMPT, COLUMNS);
    s.draft = NULL;
    s.prompt = PROMPT;
    s.params.block_length = 7;
    return s;
}

static tt_view filled(const world *w, const tt_job_spec *s) { return vectors(w, s); }

static void rules_hold_at_their_columns(void **state)
{
    const world *w = *state;
    static const int32_t allowed[] = {7, 9}, stops[] = {3};
    int32_t banned[2];
    tt_job_spec s = to_fill(w);
    tt_view free_choice = filled(w, &s);
    banned[0] = free_choice.id[8] < free_choice.id[9] ? free_choice.id[8] : free_choice.id[9];
    banned[1] = free_choice.id[8] < free_choice.id[9] ? free_choice.id[9] : free_choice.id[8];
    tt_column_rule rule[] = {{.begin = 6, .end = 8, .id = allowed, .n = 2, .allow = true},
                             {.begin = 8, .end = 10, .id = banned,
                              .n = 1 + (banned[0] != banned[1])},
                             {.begin = 9, .end = 20, .id = stops, .n = 1}};
    tt_id_value push = {3, 50};
    s = to_fill(w);
    s.rule = rule;
    s.rules = 3;
    s.bias = &push; /* wins wherever it is not banned */
    s.n_bias = 1;
    tt_view v = filled(w, &s);
    assert_true((v.id[6] == 7 || v.id[6] == 9) && (v.id[7] == 7 || v.id[7] == 9));
    assert_int_equal(v.id[8], 3);
    for (int c = 9; c < COLUMNS; c++)
        assert_int_not_equal(v.id[c], 3);
    assert_true(v.id[9] != banned[0] && v.id[9] != banned[1]);
    tt_view_free(&free_choice);
    tt_view_free(&v);
}

/* The draft that the model would write anyway is accepted in fewer passes; a foreign one is not. */
static void a_draft_is_accepted_where_the_model_agrees(void **state)
{
    const world *w = *state;
    int32_t good[COLUMNS], bad[COLUMNS];
    tt_job_spec s = to_fill(w);
    s.params.block_length = 14; /* one block: no draft is in sight, only accepted */
    tt_view plain = filled(w, &s);
    for (int c = 0; c < COLUMNS; c++) {
        good[c] = c < PROMPT ? -1 : plain.id[c];
        bad[c] = c < PROMPT ? -1 : (plain.id[c] + 1) % 200;
    }
    s.draft = bad;
    tt_view foreign = filled(w, &s);
    assert_true(foreign.nfe <= plain.nfe);
    s.draft = good;
    tt_view same = filled(w, &s);
    assert_true(same.nfe < plain.nfe);
    assert_int_equal(plain.nfe, COLUMNS - PROMPT);
    tt_view_free(&plain);
    tt_view_free(&foreign);
    tt_view_free(&same);
}

static void columns_behind_a_stop_are_left_alone(void **state)
{
    const world *w = *state;
    int32_t eos = w->masked->info.eos_id;
    tt_column_rule rule = {.begin = 10, .end = 11, .id = &eos, .n = 1, .allow = true};
    tt_job_spec s = to_fill(w);
    s.params.block_length = 14;
    s.stop_early = true;
    s.rule = &rule;
    s.rules = 1;
    tt_view whole = filled(w, &s);
    s.shrink = true;
    tt_view cut = filled(w, &s);
    assert_int_equal(cut.finish, TT_FINISH_STOP);
    assert_true(cut.end <= 10 && whole.end <= 10);
    assert_true(cut.nfe < whole.nfe);
    for (int c = cut.end + 1; c < COLUMNS; c++)
        assert_int_equal(cut.id[c], -1);
    tt_view_free(&whole);
    tt_view_free(&cut);
}

/* With the prompt itself as the negative one, guidance has nothing to lead away from. */
static void guidance_away_from_the_prompt_itself_changes_nothing(void **state)
{
    const world *w = *state;
    tt_job_spec s = to_fill(w);
    tt_view plain = filled(w, &s);
    s.params.cfg_scale = 2;
    int32_t same[PROMPT], longer[PROMPT + 3] = {1, 2, 3};
    memcpy(same, ids, sizeof same);
    memcpy(longer + 3, ids, sizeof same);
    s.negative = same;
    s.negatives = PROMPT;
    tt_view twin = filled(w, &s);
    assert_memory_equal(plain.id, twin.id, COLUMNS * sizeof *plain.id);
    s.negative = longer;
    s.negatives = PROMPT + 3;
    s.params.cache = TT_CACHE_DUAL;
    tt_view other = filled(w, &s);
    assert_int_equal(other.finish, TT_FINISH_LENGTH);
    tt_err e;
    tt_job *j;
    s.prompt = 0;
    assert_int_equal(tt_engine_submit(w->engine, &s, &j, NULL, &e), TT_EINVAL);
    assert_string_equal(e.param, "negative_prompt");
    tt_view_free(&plain);
    tt_view_free(&twin);
    tt_view_free(&other);
}

static void every_change_is_logged_in_order(void **state)
{
    const world *w = *state;
    tt_job_spec s = to_fill(w);
    s.log = true;
    s.params.steps = 5;
    tt_view v = filled(w, &s);
    assert_int_equal(v.changes, COLUMNS - PROMPT);
    for (size_t i = 0; i < v.changes; i++) {
        const tt_change *x = &v.change[i];
        assert_int_equal(x->id, v.id[x->column]);
        assert_int_equal(x->step, v.step[x->column]);
        assert_true(x->logprob == v.logprob[x->column]);
        assert_true(!i || x->step >= x[-1].step);
    }
    tt_view_free(&v);
}

/* What is taken back is logged too, and a shadow knows what the rules leave possible: a token that
 * nothing else could be is never doubted. */
static void what_is_taken_back_is_logged(void **state)
{
    const world *w = *state;
    static const int32_t only[] = {7};
    tt_column_rule rule = {.begin = 8, .end = 10, .id = only, .n = 1, .allow = true};
    int32_t now[COLUMNS], taken = 0, mask = w->masked->info.mask_id;
    tt_job_spec s = to_fill(w);
    s.sampler = tt_sampler_find("wino");
    s.params.draft_threshold = 0;
    s.params.verify_threshold = 1;
    s.rule = &rule;
    s.rules = 1;
    s.log = true;
    tt_view v = filled(w, &s);
    for (int c = 0; c < COLUMNS; c++)
        now[c] = c < PROMPT ? ids[c] : mask;
    for (size_t i = 0; i < v.changes; i++) {
        const tt_change *x = &v.change[i];
        if (x->id == mask) {
            assert_int_not_equal(now[x->column], mask);
            assert_false(x->column == 8 || x->column == 9);
            taken++;
        }
        now[x->column] = x->id;
    }
    assert_true(taken > 0);
    assert_memory_equal(now, v.id, sizeof now);
    assert_true(v.id[8] == 7 && v.id[9] == 7);
    tt_view_free(&v);
}

/* Negative prompts of any length where only some columns are fed, in a list. */
static void listed_columns_have_a_twin_too(void **state)
{
    const world *w = *state;
    tt_job_spec s = to_fill(w);
    s.params.cache = TT_CACHE_DKV;
    tt_view plain = filled(w, &s);
    s.params.cfg_scale = 2;
    s.negative = ids;
    s.negatives = PROMPT;
    tt_view twin = filled(w, &s);
    assert_memory_equal(plain.id, twin.id, COLUMNS * sizeof *plain.id);
    assert_memory_equal(plain.step, twin.step, COLUMNS * sizeof *plain.step);
    static const int32_t lengths[] = {1, PROMPT + 3};
    for (int i = 0; i < 2; i++) {
        int32_t negative[PROMPT + 3] = {5, 4, 3, 2, 1};
        s.negative = negative;
        s.negatives = lengths[i];
        tt_view other = filled(w, &s);
        assert_int_equal(other.finish, TT_FINISH_LENGTH);
        assert_memory_not_equal(plain.logprob, other.logprob, COLUMNS * sizeof *plain.logprob);
        tt_view_free(&other);
    }
    tt_view_free(&plain);
    tt_view_free(&twin);
}

/* Samplers that look again at what they did keep the canvas to themselves. */
static void some_samplers_share_no_canvas(void **state)
{
    const world *w = *state;
    static const char *const name[] = {"wino", "klass", "low_confidence"};
    int32_t eos = w->masked->info.eos_id;
    tt_column_rule rule = {.begin = 10, .end = 11, .id = &eos, .n = 1, .allow = true};
    for (int i = 0; i < 3; i++) {
        tt_job_spec s = to_fill(w);
        s.sampler = tt_sampler_find(name[i]);
        s.params.cache = i == 2 ? TT_CACHE_DKV : TT_CACHE_NONE;
        s.params.block_length = 14;
        s.stop_early = true;
        s.rule = &rule;
        s.rules = 1;
        tt_view whole = filled(w, &s);
        s.shrink = true;
        tt_view cut = filled(w, &s);
        assert_int_equal(cut.nfe, whole.nfe);
        assert_int_equal(cut.end, whole.end);
        assert_memory_equal(cut.id, whole.id, COLUMNS * sizeof *cut.id);
        tt_view_free(&whole);
        tt_view_free(&cut);
        tt_err e = {0};
        tt_job *j;
        s.draft = draft;
        assert_int_equal(tt_engine_submit(w->engine, &s, &j, NULL, &e), TT_EINVAL);
        assert_string_equal(e.param, "prediction");
    }
}

/* A job of many samples must not keep one with a single sample waiting for all of them. */
static void many_samples_leave_room_for_others(void **state)
{
    const world *w = *state;
    tt_job_spec s = to_score(w->masked, &tt_score_bound, 2, 18);
    s.samples = 1024;
    tt_job *large = submit(w, &s);
    s = to_score(w->masked, &tt_score_bound, 2, 18);
    tt_job *small = submit(w, &s);
    wait_end(small);
    assert_false(tt_job_finished(large));
    tt_job_cancel(large);
    wait_end(large);
    tt_job_release(small);
    tt_job_release(large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_chain_is_the_product_of_its_factors),
        cmocka_unit_test(the_bound_is_the_mean_over_orders),
        cmocka_unit_test(scores_do_not_depend_on_company),
        cmocka_unit_test(a_causal_score_looks_back_only),
        cmocka_unit_test(a_block_causal_score_sees_no_later_block),
        cmocka_unit_test(other_families_score_and_encode),
        cmocka_unit_test(the_last_state_is_the_last_of_them),
        cmocka_unit_test(a_mean_over_one_column_is_that_column),
        cmocka_unit_test(words_give_states_tokens_and_logits),
        cmocka_unit_test(vectors_do_not_depend_on_company),
        cmocka_unit_test(rules_hold_at_their_columns),
        cmocka_unit_test(a_draft_is_accepted_where_the_model_agrees),
        cmocka_unit_test(columns_behind_a_stop_are_left_alone),
        cmocka_unit_test(guidance_away_from_the_prompt_itself_changes_nothing),
        cmocka_unit_test(every_change_is_logged_in_order),
        cmocka_unit_test(what_is_taken_back_is_logged),
        cmocka_unit_test(listed_columns_have_a_twin_too),
        cmocka_unit_test(some_samplers_share_no_canvas),
        cmocka_unit_test(many_samples_leave_room_for_others),
    };
    return cmocka_run_group_tests_name("engine_read", tests, setup, teardown);
}
