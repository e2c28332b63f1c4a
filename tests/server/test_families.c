/* Models of the newer families through the engine. What can go wrong: a mask nobody knows, or
 * another one than the tokenizer's; a default sampler that does not fit; a canvas that ends inside
 * a block, or memory reserved for less; samples that are not the reference's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/engine.h"
#include "server/mask.h"

#define GOLDEN "tests/golden/masked-diffusion/"

/* A folder with the weights and config of another, and a generation_config.json or none. */
static void make_folder(char *folder, const char *from, const char *generation)
{
    static const char *const file[] = {"config.json", "model.safetensors"};
    char path[300], target[300], here[200];
    assert_non_null(mkdtemp(folder));
    assert_non_null(getcwd(here, sizeof here));
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, file[i]);
        snprintf(target, sizeof target, "%s/%s/%s", here, from, file[i]);
        assert_int_equal(symlink(target, path), 0);
    }
    if (generation) {
        snprintf(path, sizeof path, "%s/generation_config.json", folder);
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        fputs(generation, f);
        fclose(f);
    }
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

static tt_engine *open_engine(void)
{
    tt_engine *g;
    tt_err e = {0};
    tt_engine_options o = {.device = "plain"};
    if (tt_engine_open(&g, &o, &e))
        fail_msg("%s", e.text);
    return g;
}

/* Runs the job to its end; the canvas goes to out. */
static tt_finish run(tt_engine *g, const tt_job_spec *s, int32_t *out, int32_t *last)
{
    tt_job *j;
    tt_err e = {0};
    if (tt_engine_submit(g, s, &j, NULL, &e))
        fail_msg("%s", e.text);
    uint64_t seen = 0;
    tt_view v = {0};
    while (!tt_job_finished(j)) {
        tt_job_wait(j, &seen, 1000);
        tt_job_view(j, 0, &v);
        seen = v.version;
    }
    v.version = 0;
    assert_true(tt_job_view(j, 0, &v));
    if (v.finish == TT_FINISH_ERROR)
        fail_msg("%s", v.error.text);
    memcpy(out, v.id, (size_t)v.columns * sizeof *out);
    tt_finish why = v.finish;
    *last = v.end;
    tt_view_free(&v);
    tt_job_release(j);
    return why;
}

static void a_mask_nobody_names_is_an_error(void **state)
{
    (void)state;
    tt_engine *g = open_engine();
    char folder[] = "/tmp/tutti-mask-XXXXXX", wide[] = "/tmp/tutti-mask-XXXXXX";
    tt_err e = {0};
    make_folder(folder, GOLDEN "llada2_moe", NULL);
    assert_int_equal(tt_engine_add_model(g, "a", folder, TT_WEIGHTS_F32, NULL, NULL, &e),
                     TT_EFORMAT);
    assert_non_null(strstr(e.text, "mask_token_id"));
    remove_folder(folder);
    make_folder(wide, GOLDEN "llada2_moe", "{\"mask_token_id\": 304}");
    assert_int_equal(tt_engine_add_model(g, "a", wide, TT_WEIGHTS_F32, NULL, NULL, &e), TT_EFORMAT);
    assert_non_null(strstr(e.text, "304"));
    remove_folder(wide);
    tt_engine_close(g);
}

static void the_tokenizers_mask_is_taken(void **state)
{
    (void)state;
    tt_err e = {0};
    static const char json[] =
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]},"
        "\"added_tokens\":[{\"id\":2,\"content\":\"<|mask|>\",\"special\":true},"
        "{\"id\":3,\"content\":\"<hole>\",\"special\":true}]}";
    static const char config[] = "{\"mask_token\": \"<hole>\"}";
    tt_tok *t;
    tt_model_info info = {.kinds = TT_KIND_BLOCKS, .mask_id = -1, .vocab = 10};
    if (tt_tok_open_text(&t, json, strlen(json), NULL, 0, &e))
        fail_msg("%s", e.text);
    assert_int_equal(tt_mask_find(&info, "/nowhere", t, &e), TT_OK);
    assert_int_equal(info.mask_id, 2);
    tt_tok_close(t);
    if (tt_tok_open_text(&t, json, strlen(json), config, strlen(config), &e))
        fail_msg("%s", e.text);
    info.mask_id = -1;
    assert_int_equal(tt_mask_find(&info, "/nowhere", t, &e), TT_OK);
    assert_int_equal(info.mask_id, 3);
    info.mask_id = 7; /* config.json's stays */
    assert_int_equal(tt_mask_find(&info, "/nowhere", t, &e), TT_OK);
    assert_int_equal(info.mask_id, 7);
    info = (tt_model_info){.kinds = TT_KIND_CAUSAL, .mask_id = -1, .vocab = 10};
    assert_int_equal(tt_mask_find(&info, "/nowhere", NULL, &e), TT_OK);
    assert_int_equal(info.mask_id, -1);
    tt_tok_close(t);
}

/* Case llada2/threshold_0.5 of the reference traces: 6 columns of a prompt, 24 generated, so that
 * the last block of 8 reaches beyond the canvas. */
static void block_diffusion_gives_the_reference_answer(void **state)
{
    (void)state;
    static const int32_t prompt[6] = {175, 88, 249, 33, 209, 24};
    static const int32_t answer[24] = {89, 230, 165, 153, 204, 165, 109, 241, 158, 153, 140, 204,
                                       58, 236, 257, 13,  204, 204, 165, 165, 204, 2,   204, 94};
    char folder[] = "/tmp/tutti-blocks-XXXXXX";
    make_folder(folder, GOLDEN "llada2_moe",
                "{\"mask_token_id\": 301, \"block_length\": 8, \"threshold\": 0.5}");
    tt_engine *g = open_engine();
    tt_err e = {0};
    if (tt_engine_add_model(g, "blocks", folder, TT_WEIGHTS_F32, NULL, NULL, &e))
        fail_msg("%s", e.text);
    const tt_served *m = tt_engine_find(g, "blocks");
    assert_string_equal(m->sampler->name, "llada2_block");
    assert_int_equal(m->info.mask_id, 301);
    int32_t id[64] = {0}, out[64], last;
    uint8_t open[64];
    memcpy(id, prompt, sizeof prompt);
    for (int c = 0; c < 64; c++)
        open[c] = c >= 6;
    tt_job_spec s = {.model = m,
                     .params = m->defaults,
                     .id = id,
                     .open = open,
                     .columns = 30,
                     .prompt = 6,
                     .samples = 1,
                     .stop_early = true};
    assert_int_equal(run(g, &s, out, &last), TT_FINISH_LENGTH);
    assert_int_equal(last, 30);
    assert_memory_equal(out + 6, answer, sizeof answer);
    s.sampler = tt_sampler_find("low_confidence"); /* needs to see everything */
    tt_job *j;
    assert_int_equal(tt_engine_submit(g, &s, &j, NULL, &e), TT_EINVAL);
    assert_string_equal(e.param, "sampler");
    open[3] = 1;
    s.sampler = NULL;
    assert_int_equal(tt_engine_submit(g, &s, &j, NULL, &e), TT_EINVAL);
    assert_non_null(strstr(e.text, "holes"));
    tt_engine_close(g);
    remove_folder(folder);
}

static void mdlm_draws_by_default_and_fills_holes(void **state)
{
    (void)state;
    tt_engine *g = open_engine();
    tt_err e = {0};
    if (tt_engine_add_model(g, "mdlm", GOLDEN "mdlm", TT_WEIGHTS_F32, NULL, NULL, &e))
        fail_msg("%s", e.text);
    const tt_served *m = tt_engine_find(g, "mdlm");
    assert_string_equal(m->sampler->name, "ddpm");
    assert_true(m->defaults.temperature == 1);
    int32_t id[24], out[3][24], last;
    uint8_t open[24];
    for (int c = 0; c < 24; c++) {
        id[c] = c * 3;
        open[c] = c % 4 != 0;
    }
    for (int i = 0; i < 3; i++) {
        tt_job_spec s = {.model = m,
                         .params = m->defaults,
                         .id = id,
                         .open = open,
                         .columns = 24,
                         .samples = 1,
                         .seed = (uint64_t)(i == 2),
                         .ban_stops = true};
        assert_int_equal(run(g, &s, out[i], &last), TT_FINISH_LENGTH);
        for (int c = 0; c < 24; c++)
            assert_true(open[c] ? out[i][c] >= 0 && out[i][c] < 256 : out[i][c] == id[c]);
    }
    assert_memory_equal(out[0], out[1], sizeof out[0]);
    assert_memory_not_equal(out[0], out[2], sizeof out[0]);
    tt_engine_close(g);
}

/* Prompts of other lengths, samplers and recurrences at the same time: the tokens are those of each
 * alone; a step says what stands and how often every column was refined. */
static void recurrent_depth_goes_side_by_side(void **state)
{
    (void)state;
    enum { JOBS = 6, COLUMNS = 30 };
    static const char *const sampler[] = {"forcing", "recurrent", "self_speculative"};
    tt_engine *g = open_engine();
    tt_err e = {0};
    if (tt_engine_add_model(g, "depth", "tests/golden/recurrent-depth/model", TT_WEIGHTS_F32,
                            NULL, NULL, &e))
        fail_msg("%s", e.text);
    const tt_served *m = tt_engine_find(g, "depth");
    assert_string_equal(m->sampler->name, "forcing");
    assert_int_equal(m->defaults.recurrence, 8); /* the model's own */
    int32_t id[JOBS][COLUMNS], alone[JOBS][COLUMNS], last;
    uint8_t open[JOBS][COLUMNS];
    tt_job_spec s[JOBS];
    tt_job *job[JOBS];
    for (int i = 0; i < JOBS; i++) {
        for (int c = 0; c < COLUMNS; c++) {
            id[i][c] = (7 * i + 3 * c) % 64;
            open[i][c] = c >= 4 + i;
        }
        s[i] = (tt_job_spec){.model = m, .sampler = tt_sampler_find(sampler[i % 3]),
                             .params = m->defaults, .id = id[i], .open = open[i],
                             .columns = COLUMNS, .prompt = 4 + i, .samples = 1, .seed = 5,
                             .log = true};
        s[i].params.recurrence = 6 + i % 2;
        s[i].params.temperature = i > 2 ? 0.8 : 0;
        assert_int_equal(run(g, &s[i], alone[i], &last), TT_FINISH_LENGTH);
    }
    for (int i = 0; i < JOBS; i++)
        assert_int_equal(tt_engine_submit(g, &s[i], &job[i], NULL, &e), TT_OK);
    for (int i = 0; i < JOBS; i++) {
        uint64_t seen = 0;
        tt_view v = {0};
        while (!tt_job_finished(job[i])) {
            tt_job_wait(job[i], &seen, 1000);
            tt_job_view(job[i], 0, &v);
            seen = v.version;
        }
        tt_job_view(job[i], 0, &v);
        assert_memory_equal(v.id, alone[i], sizeof alone[i]);
        assert_int_equal(v.unsettled, 0);
        assert_true(v.depth.core_passes > 0 && v.depth.core_rows >= v.depth.core_passes);
        for (int c = 0; c < COLUMNS - 1; c++)
            assert_true(v.recurrences[c] > 0);
        bool drafts = false;
        for (size_t k = 0; k < v.changes; k++)
            drafts |= v.change[k].draft;
        assert_int_equal(drafts, i % 3 == 0);
        tt_view_free(&v);
        tt_job_release(job[i]);
    }
    static const int32_t guess[COLUMNS] = {0};
    s[2].draft = guess;
    tt_job *j;
    assert_int_equal(tt_engine_submit(g, &s[2], &j, NULL, &e), TT_EINVAL);
    assert_string_equal(e.param, "prediction");
    tt_engine_close(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mask_nobody_names_is_an_error),
        cmocka_unit_test(the_tokenizers_mask_is_taken),
        cmocka_unit_test(block_diffusion_gives_the_reference_answer),
        cmocka_unit_test(mdlm_draws_by_default_and_fills_holes),
        cmocka_unit_test(recurrent_depth_goes_side_by_side),
    };
    return cmocka_run_group_tests_name("families", tests, NULL, NULL);
}
