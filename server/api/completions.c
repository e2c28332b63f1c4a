/* completions.c - POST /v1/completions, and the two fill-in-the-middle shapes built on the same
 * canvases: /v1/fim/completions and llama-server's /infill. */
#include <string.h>

#include "server/api/constrain.h"
#include "server/api/fit.h"

/* Behind the prompt: the gap, and the suffix when there is one. Without a suffix the answer may
 * end early; with one it fills the gap. */
static tt_status add_gap(tt_gen *g, tt_canvas *c, const cJSON *body, int64_t tokens,
                         const char *suffix, const char *suffix_path, tt_err *e)
{
    c->prompt = suffix ? 0 : (int32_t)c->ids.count;
    tt_status s = tt_canvas_add_hole(g, c, tokens, NULL, "max_tokens", e);
    if (!s && suffix)
        s = tt_canvas_add_text(g, c, suffix, 0, suffix_path, e);
    return s ? s : tt_gen_steer(g, c, body, e);
}

/* With min_tokens a gap's length is fitted: see fit.h. The prompt's columns become the first slot
 * of that text. */
static tt_status fit_gap(tt_gen *g, const cJSON *body, int64_t tokens, const char *suffix,
                         tt_err *e)
{
    int64_t least = tt_field_int(body, "min_tokens", 1);
    if (g->canvases != 1)
        return tt_fail_param(e, "min_tokens", "unsupported_parameter",
                             "'min_tokens' with a suffix takes one prompt");
    if (least > tokens || tokens - least >= TT_FIT_CANDIDATES)
        return tt_fail_param(e, "min_tokens", "invalid_value",
                             "'min_tokens' is %lld; with a suffix it must be at most max_tokens, "
                             "and less than %d below it", (long long)least, TT_FIT_CANDIDATES);
    tt_status s = tt_fit_open(g, e);
    tt_slot *slot = s ? NULL : tt_fit_add(g, e);
    if (!slot)
        return e->status;
    tt_canvas *c = &g->canvas[0];
    slot->text = g->echo ? c->part[0].text : NULL;
    slot->ids = c->ids;
    c->ids = (tt_ids){0};
    tt_canvas_free(c);
    g->canvases = 0;
    slot = tt_fit_add(g, e);
    if (!slot)
        return e->status;
    *slot = (tt_slot){.hole = true, .id = "0", .min = least < 1 ? 1 : least, .max = tokens};
    s = tt_positions_read(g, tt_json_get(body, "tutti"), "tutti", tokens, &slot->positions, e);
    if (!s) /* refuses min_tokens beside a form */
        s = tt_gen_read_format(g, body, e);
    slot = s ? NULL : tt_fit_add(g, e);
    if (!slot)
        return e->status;
    unsigned flags = g->special_tokens ? TT_TOK_PARSE_SPECIAL : 0;
    if (!g->model->tok)
        return tt_fail_param(e, "suffix", "unsupported_value", "model '%s' has no tokenizer",
                             g->model->id);
    s = tt_tok_encode(g->model->tok, suffix, strlen(suffix), flags, &slot->ids, e);
    if (!s)
        s = tt_fit_check(g, "max_tokens", e);
    return s ? s : tt_fit_close(g, e);
}

static tt_status read_gaps(tt_gen *g, const cJSON *body, int64_t tokens, tt_err *e)
{
    const char *suffix = tt_field_text(body, "suffix", NULL);
    if (suffix && !*suffix)
        suffix = NULL; /* nothing follows: an ordinary completion */
    g->stop_early = !suffix;
    g->ban_stops = suffix != NULL;
    tt_status s = tt_gen_read_prompts(g, tt_json_get(body, "prompt"), g->echo, e);
    if (!s && suffix && tt_json_get(body, "min_tokens") && !g->sampler->inserts)
        return fit_gap(g, body, tokens, suffix, e);
    for (int i = 0; i < g->canvases && !s; i++)
        s = add_gap(g, &g->canvas[i], body, tokens, suffix, "suffix", e);
    return s;
}

static tt_status read_completion(tt_gen *g, const cJSON *body, tt_err *e)
{
    if (g->echo && g->logprobs)
        tt_gen_warn(g, "logprobs cover the answer only: tokens of the prompt are not scored");
    tt_ids predicted = {0};
    tt_status s = tt_gen_read_prediction(g, body, &predicted, e);
    int64_t usual = predicted.count ? (int64_t)predicted.count + TT_DEFAULT_COMPLETION
                                    : TT_DEFAULT_COMPLETION;
    if (!s)
        s = read_gaps(g, body, tt_field_int(body, "max_tokens", usual), e);
    if (!s && predicted.count && tt_fit_pending(g))
        s = tt_fail_param(e, "prediction", "unsupported_parameter",
                          "'prediction' and a gap of fitted length exclude each other");
    for (int i = 0; i < g->canvases && !s; i++)
        s = tt_canvas_predict(&g->canvas[i], &predicted, e);
    tt_ids_free(&predicted);
    return s;
}

/* Bytes of literal text before the first hole. */
static size_t text_before(const tt_choice *c)
{
    return c->canvas->part[0].hole ? 0 : c->canvas->part[0].bytes;
}

static void put_text_of(const tt_choice *c, const char *key, tt_json *w)
{
    tt_buf text = {0};
    tt_choice_text(c, &text);
    tt_json_key(w, key);
    tt_json_put_bytes(w, tt_buf_text(&text), text.size);
    tt_buf_free(&text);
}

static void completion_choice(const tt_gen *g, const tt_choice *c, tt_json *w)
{
    const tt_text_out *o = &c->out[0];
    put_text_of(c, "text", w);
    tt_json_key(w, "logprobs");
    if (g->logprobs)
        tt_write_legacy_logprobs(g, c, o, 0, tt_text_out_tokens_before(o, o->ready),
                                 text_before(c), w);
    else
        tt_json_put_null(w);
}

static void completion_delta(const tt_gen *g, const tt_choice *c, const tt_piece *p, tt_json *w)
{
    tt_json_key(w, "text");
    tt_json_put_bytes(w, p->text, p->bytes);
    tt_json_key(w, "logprobs");
    if (p->tokens)
        tt_write_legacy_logprobs(g, c, p->tokens, p->from, p->to, p->offset, w);
    else
        tt_json_put_null(w);
}

const tt_endpoint tt_endpoint_completions = {
    .on = TT_ON_COMPLETIONS,
    .id_prefix = "cmpl-",
    .object = "text_completion",
    .chunk_object = "text_completion",
    .read = read_completion,
    .choice = completion_choice,
    .delta = completion_delta,
};

/* --- /v1/fim/completions: clients of this shape read either `text` or a message --- */

static tt_status read_fim(tt_gen *g, const cJSON *body, tt_err *e)
{
    return read_gaps(g, body, tt_field_int(body, "max_tokens", TT_DEFAULT_FIM), e);
}

static void fim_choice(const tt_gen *g, const tt_choice *c, tt_json *w)
{
    (void)g;
    put_text_of(c, "text", w);
    tt_json_open_member(w, "message", '{');
    tt_json_text_member(w, "role", "assistant");
    put_text_of(c, "content", w);
    tt_json_close(w, '}');
}

static void fim_delta(const tt_gen *g, const tt_choice *c, const tt_piece *p, tt_json *w)
{
    (void)g;
    (void)c;
    tt_json_key(w, "text");
    tt_json_put_bytes(w, p->text, p->bytes);
    tt_json_open_member(w, "delta", '{');
    if (p->first)
        tt_json_text_member(w, "role", "assistant");
    if (!p->last) {
        tt_json_key(w, "content");
        tt_json_put_bytes(w, p->text, p->bytes);
    }
    tt_json_close(w, '}');
}

const tt_endpoint tt_endpoint_fim = {
    .on = TT_ON_FIM,
    .id_prefix = "fim-",
    .object = "chat.completion",
    .chunk_object = "chat.completion.chunk",
    .read = read_fim,
    .choice = fim_choice,
    .delta = fim_delta,
};

/* --- /infill as llama-server has it --- */

static tt_status refuse_lists(const cJSON *body, tt_err *e)
{
    const cJSON *prompt = tt_json_get(body, "prompt");
    const char *text;
    if (tt_field_bool(body, "stream", false))
        return tt_fail_param(e, "stream", "unsupported_parameter",
                             "/infill answers in one piece; /v1/completions with 'suffix' streams");
    if (tt_field_int(body, "n", 1) != 1)
        return tt_fail_param(e, "n", "unsupported_parameter", "/infill gives one answer");
    return prompt ? tt_json_text(prompt, "prompt", &text, e) : TT_OK;
}

static tt_status read_llama(tt_gen *g, const cJSON *body, tt_err *e)
{
    tt_status s = refuse_lists(body, e);
    tt_canvas *c = s ? NULL : tt_gen_add_canvas(g, e);
    if (!c)
        return s ? s : e->status;
    if (cJSON_GetArraySize(tt_json_get(body, "input_extra")))
        tt_gen_warn(g, "input_extra is not used");
    const char *suffix = tt_field_text(body, "input_suffix", "");
    int64_t tokens = tt_field_int(body, "n_predict", -1);
    g->stop_early = !*suffix;
    g->ban_stops = *suffix != '\0';
    s = tt_canvas_add_text(g, c, tt_field_text(body, "input_prefix", ""), TT_TOK_ADD_SPECIAL,
                           "input_prefix", e);
    if (!s)
        s = tt_canvas_add_text(g, c, tt_field_text(body, "prompt", ""), 0, "prompt", e);
    if (!s && tokens == 0)
        s = tt_fail_param(e, "n_predict", "invalid_value", "'n_predict' is 0, must be -1 or more");
    return s ? s
             : add_gap(g, c, body, tokens < 0 ? TT_DEFAULT_FIM : tokens, *suffix ? suffix : NULL,
                       "input_suffix", e);
}

static void llama_answer(const tt_gen *g, tt_json *w)
{
    const tt_choice *c = &g->choice[0];
    tt_job_times t = tt_job_get_times(c->canvas->job);
    int32_t made = c->out[0].tokens;
    tt_json_open(w, '{');
    tt_json_int_member(w, "index", 0);
    put_text_of(c, "content", w);
    tt_json_text_member(w, "model", g->model->id);
    tt_json_bool_member(w, "stop", true);
    tt_json_text_member(w, "stop_type",
                        c->out[0].hit_stop            ? "word"
                        : c->finish == TT_FINISH_STOP ? "eos"
                                                      : "limit");
    tt_json_int_member(w, "tokens_predicted", made);
    tt_json_int_member(w, "tokens_evaluated", c->canvas->given);
    tt_json_int_member(w, "tokens_cached", 0);
    tt_json_bool_member(w, "truncated", false);
    tt_json_open_member(w, "timings", '{');
    tt_json_int_member(w, "prompt_n", c->canvas->given);
    tt_json_float_member(w, "prompt_ms", t.queue_ms);
    tt_json_int_member(w, "predicted_n", made);
    tt_json_float_member(w, "predicted_ms", t.run_ms);
    tt_json_float_member(w, "predicted_per_second", t.run_ms > 0 ? made / t.run_ms * 1e3 : 0);
    tt_json_close(w, '}');
    tt_json_open_member(w, "tutti", '{');
    tt_gen_write_extras(g, w);
    tt_json_close(w, '}');
    tt_json_close(w, '}');
}

const tt_endpoint tt_endpoint_llama_infill = {
    .on = TT_ON_LLAMA,
    .id_prefix = "infill-",
    .read = read_llama,
    .answer = llama_answer,
};
