/* encode.c - texts become canvases whose pass gives vectors, and vectors become numbers: see
 * read.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "server/api/read.h"

enum { MAX_TERMS = 2048 };

/* --- options --- */

static tt_status read_pooling(tt_gen *g, const cJSON *tutti, tt_err *e)
{
    tt_reading *r = &g->reading;
    bool masked = g->model->info.kinds & (TT_KIND_BIDIRECTIONAL | TT_KIND_BLOCKS);
    const char *name = tt_field_text(tutti, "pooling", masked ? "mean" : "last");
    r->pool = strcmp(name, "mean") ? TT_POOL_LAST : TT_POOL_MEAN;
    r->add_end = !strcmp(name, "eos");
    if (r->pool == TT_POOL_LAST && !r->add_end && strcmp(name, "last"))
        return tt_fail_param(e, "tutti.pooling", "invalid_value",
                             "'tutti.pooling' is '%.40s', must be mean, last or eos", name);
    if (r->add_end && g->model->info.eos_id < 0)
        return tt_fail_param(e, "tutti.pooling", "unsupported_value",
                             "model '%s' has no end token", g->model->id);
    return TT_OK;
}

static tt_status read_output(tt_reading *r, const cJSON *m, const char *path, tt_err *e)
{
    if (!strcmp(m->valuestring, "dense"))
        r->dense = true;
    else if (!strcmp(m->valuestring, "sparse"))
        r->sparse = true;
    else
        return tt_fail_param(e, path, "invalid_value", "'%s' is '%.40s', must be dense or sparse",
                             path, m->valuestring);
    return TT_OK;
}

static tt_status read_outputs(tt_reading *r, const cJSON *tutti, tt_err *e)
{
    const cJSON *m, *list = tt_json_get(tutti, "outputs");
    tt_status s = TT_OK;
    int i = 0;
    r->sparse_top = (int32_t)tt_field_int(tutti, "sparse_top", 128);
    if (cJSON_IsString(list))
        s = read_output(r, list, "tutti.outputs", e);
    else
        cJSON_ArrayForEach(m, list)
            s = s ? s : read_output(r, m, tt_json_element("tutti.outputs", i++).text, e);
    r->dense |= !r->sparse;
    return s;
}

/* Members that mean nothing without several vectors. */
static tt_status refuse_without_k(const cJSON *tutti, tt_err *e)
{
    static const char *const names[] = {"kind", "outputs", "sparse_top", "wording", NULL};
    for (int i = 0; names[i]; i++)
        if (tt_json_get(tutti, names[i]))
            return tt_fail_param(e, tt_json_member("tutti", names[i]).text, "invalid_value",
                                 "'tutti.%s' needs 'tutti.k'", names[i]);
    return TT_OK;
}

static tt_status keep_wording(tt_gen *g, const cJSON *m, const char *path, bool holds_text,
                              const char **out, tt_err *e)
{
    const char *text;
    tt_status s = tt_json_text(m, path, &text, e);
    if (s)
        return s;
    if (holds_text && !strstr(text, "{text}"))
        return tt_fail_param(e, path, "invalid_value", "'%s' does not say where {text} goes", path);
    *out = tt_gen_keep(g, text, strlen(text));
    return *out ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for the request");
}

static tt_status read_wording(tt_gen *g, const cJSON *wording, tt_err *e)
{
    tt_wording *w = &g->reading.wording;
    static const char *const name[] = {"system", "query", "passage", "start"};
    const char **const part[] = {&w->system, &w->query, &w->passage, &w->start};
    const cJSON *m;
    cJSON_ArrayForEach(m, wording)
    {
        tt_json_path at = tt_json_member("tutti.wording", m->string);
        int i = 0;
        while (i < 4 && strcmp(m->string, name[i]))
            i++;
        if (i == 4)
            return tt_fail_param(e, at.text, "unknown_parameter", "unknown parameter '%s'",
                                 at.text);
        tt_status s = keep_wording(g, m, at.text, i == 1 || i == 2, part[i], e);
        if (s)
            return s;
    }
    return TT_OK;
}

static tt_status check_k(const tt_gen *g, const cJSON *tutti, tt_err *e)
{
    if (tt_json_get(tutti, "pooling"))
        return tt_fail_param(e, "tutti.pooling", "invalid_value",
                             "'tutti.pooling' and 'tutti.k' exclude each other");
    if (g->model->info.kinds & TT_KIND_CAUSAL || g->model->info.mask_id < 0)
        return tt_fail_param(e, "tutti.k", "unsupported_parameter",
                             "model '%s' is causal; several vectors need a masked model",
                             g->model->id);
    if (!g->model->chat)
        return tt_fail_param(e, "tutti.k", "unsupported_parameter",
                             "several vectors are asked for in a chat, and model '%s' cannot: %s",
                             g->model->id,
                             g->model->why_no_chat ? g->model->why_no_chat : "no chat format");
    return TT_OK;
}

tt_status tt_encode_read(tt_gen *g, const cJSON *body, tt_err *e)
{
    const cJSON *tutti = tt_json_get(body, "tutti");
    tt_reading *r = &g->reading;
    int32_t k = (int32_t)tt_field_int(tutti, "k", 0);
    r->k_query = (int32_t)tt_field_int(tutti, "k_query", k);
    r->k_passage = (int32_t)tt_field_int(tutti, "k_passage", k);
    r->raw = !tt_field_bool(tutti, "normalize", true);
    if (!r->k_query != !r->k_passage)
        return tt_fail_param(e, r->k_query ? "tutti.k_passage" : "tutti.k_query",
                             "missing_required_parameter",
                             "'tutti.k_query' and 'tutti.k_passage' go together");
    if (!r->k_query) {
        tt_status s = refuse_without_k(tutti, e);
        return s ? s : read_pooling(g, tutti, e);
    }
    tt_status s = check_k(g, tutti, e);
    if (!s)
        s = read_wording(g, tt_json_get(tutti, "wording"), e);
    r->pool = TT_POOL_OPEN;
    return s ? s : read_outputs(r, tutti, e);
}

/* --- several vectors: the model is asked to put the text into k words --- */

static const char system_text[] = "You are an AI assistant that can understand human language.";

/* DiffRetriever's instruction, where the request has none of its own. */
static void put_instruction(bool passage, int32_t k, tt_buf *out)
{
    const char *what = passage ? "passage" : "query";
    tt_buf_printf(out, "%s: \"{text}\". Use %s to represent the %s in a retrieval task. Make sure "
                       "your %s in lowercase.",
                  passage ? "Passage" : "Query", k > 1 ? "a few words" : "one word", what,
                  k > 1 ? "words are" : "word is");
}

/* {text} and {k} of the instruction replaced; the text itself stays as it is. */
static void put_wording(const char *instruction, const char *text, int32_t k, tt_buf *out)
{
    for (const char *p = instruction; *p;)
        if (!strncmp(p, "{text}", 6)) {
            tt_buf_puts(out, text);
            p += 6;
        } else if (!strncmp(p, "{k}", 3)) {
            tt_buf_printf(out, "%d", k);
            p += 3;
        } else {
            tt_buf_putc(out, *p++);
        }
}

/* The turns before the words, and the beginning of the answer. */
static tt_status ask_for_words(const tt_gen *g, bool passage, int32_t k, const char *text,
                               tt_ids *out, tt_err *e)
{
    const tt_wording *own = &g->reading.wording;
    const char *system = own->system ? own->system : system_text;
    const char *instruction = passage ? own->passage : own->query;
    const char *start = own->start ? own->start : k > 1 ? "The words are: \"" : "The word is: \"";
    tt_buf usual = {0}, user = {0};
    put_instruction(passage, k, &usual);
    put_wording(instruction ? instruction : tt_buf_text(&usual), text, k, &user);
    tt_chat_turn turn[] = {{"system", system, strlen(system)},
                           {"user", tt_buf_text(&user), user.size}};
    tt_status s = usual.failed || user.failed
                      ? tt_fail(e, TT_ENOMEM, "no memory for the text")
                      : tt_chat_encode(g->model->chat, g->model->tok, turn, 2, false, out, e);
    if (!s)
        s = tt_tok_encode(g->model->tok, start, strlen(start), 0, out, e);
    tt_buf_free(&usual);
    tt_buf_free(&user);
    return s;
}

/* Closing quote, end of turn, end of text: three tokens. */
static tt_status end_words(const tt_gen *g, tt_canvas *c, const char *path, tt_err *e)
{
    const tt_model_info *info = &g->model->info;
    int32_t tail[3], n = 0;
    tt_ids quote = {0};
    tt_status s = tt_tok_encode(g->model->tok, "\"", 1, 0, &quote, e);
    if (!s && quote.count)
        tail[n++] = quote.id[0];
    tt_ids_free(&quote);
    if (info->eot_id >= 0 && info->eot_id != info->eos_id)
        tail[n++] = info->eot_id;
    while (n < 3 && info->eos_id >= 0)
        tail[n++] = info->eos_id;
    return s ? s : tt_canvas_add_ids(g, c, tail, (size_t)n, path, e);
}

static tt_status add_terms(tt_gen *g, tt_canvas *c, const char *text, tt_err *e)
{
    tt_ids terms = {0};
    tt_status s = tt_terms(g->model->tok, text, &terms, e);
    size_t n = terms.count < MAX_TERMS ? terms.count : MAX_TERMS;
    char *kept = s ? NULL : tt_gen_keep(g, (const char *)terms.id, n * sizeof *terms.id);
    tt_ids_free(&terms);
    if (s || !kept)
        return s ? s : tt_fail(e, TT_ENOMEM, "no memory for the text");
    c->encoding.term = (const int32_t *)(const void *)kept;
    c->encoding.terms = (int32_t)n;
    return TT_OK;
}

static tt_status add_words(tt_gen *g, tt_canvas *c, bool passage, const char *text,
                           const char *path, tt_err *e)
{
    int32_t k = passage ? g->reading.k_passage : g->reading.k_query;
    tt_ids ids = {0};
    tt_status s = ask_for_words(g, passage, k, text, &ids, e);
    if (!s)
        s = tt_canvas_add_ids(g, c, ids.id, ids.count, path, e);
    tt_ids_free(&ids);
    static const int32_t nothing = 0;
    for (int32_t i = 0; i < k && !s; i++) {
        s = tt_ids_add(&c->ids, &nothing, 1, e);
        tt_buf_putc(&c->open, 1);
    }
    if (!s)
        s = end_words(g, c, path, e);
    if (!s && c->open.failed)
        s = tt_fail(e, TT_ENOMEM, "no memory for the text");
    return s || !g->reading.sparse ? s : add_terms(g, c, text, e);
}

static tt_status add_plain(tt_gen *g, tt_canvas *c, const char *text, const tt_ids *ids,
                           const char *path, tt_err *e)
{
    int32_t end = g->model->info.eos_id;
    tt_status s = text ? tt_canvas_add_text(g, c, text, TT_TOK_ADD_SPECIAL, path, e)
                       : tt_canvas_add_ids(g, c, ids->id, ids->count, path, e);
    if (!s && g->reading.add_end)
        s = tt_canvas_add_ids(g, c, &end, 1, path, e);
    if (!s && !c->ids.count)
        s = tt_fail_param(e, path, "invalid_value", "'%s' has no token", path);
    return s;
}

tt_status tt_encode_add(tt_gen *g, bool passage, const char *text, const tt_ids *ids,
                        const char *path, tt_err *e)
{
    const tt_sampler *how = tt_encode_for(g->model->info.kinds);
    if (!tt_sampler_fits(how, g->model->info.kinds))
        return tt_fail_param(e, "model", "unsupported_value", "model '%s' makes no embeddings",
                             g->model->id);
    tt_canvas *c = tt_gen_add_canvas(g, e);
    if (!c)
        return e->status;
    c->sampler = how;
    c->samples = 1;
    c->encoding.pool = g->reading.pool;
    if (g->reading.pool != TT_POOL_OPEN)
        return add_plain(g, c, text, ids, path, e);
    if (!text)
        return tt_fail_param(e, path, "unsupported_value",
                             "'%s' is token ids; with 'tutti.k' send text", path);
    return add_words(g, c, passage, text, path, e);
}

/* --- vectors --- */

int32_t tt_encode_count(const tt_gen *g, const tt_choice *c)
{
    int32_t n = c->view.features.vectors, i = 0;
    if (g->reading.pool != TT_POOL_OPEN)
        return n;
    for (int32_t at = 0; at < c->view.columns && i < n; at++) {
        if (!c->canvas->open.data[at])
            continue;
        if (i && tt_tok_is_special(g->model->tok, c->view.id[at]))
            break; /* the model has no more words; the first one always counts */
        i++;
    }
    return i;
}

static void normalise(float *v, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)v[i] * (double)v[i];
    for (int64_t i = 0; i < n && sum > 0; i++)
        v[i] = (float)((double)v[i] / sqrt(sum));
}

void tt_encode_vector(const tt_choice *c, int32_t i, int64_t width, bool raw, float *out)
{
    const tt_features *f = &c->view.features;
    memcpy(out, f->vector + (int64_t)i * f->width, (size_t)width * sizeof *out);
    if (!raw)
        normalise(out, width);
}

void tt_encode_single(const tt_gen *g, const tt_choice *c, int64_t width, bool raw, float *out)
{
    int32_t n = tt_encode_count(g, c);
    const tt_features *f = &c->view.features;
    if (n == 1) {
        tt_encode_vector(c, 0, width, raw, out);
        return;
    }
    for (int64_t i = 0; i < width; i++)
        out[i] = 0;
    for (int32_t k = 0; k < n; k++) {
        const float *v = f->vector + (int64_t)k * f->width;
        double sum = 0;
        for (int64_t i = 0; i < width; i++)
            sum += (double)v[i] * (double)v[i];
        for (int64_t i = 0; i < width && sum > 0; i++)
            out[i] += (float)((double)v[i] / sqrt(sum) / n);
    }
    if (!raw)
        normalise(out, width);
}

static double product(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* All vectors that count, each of length 1, one after the other. */
static float *unit_vectors(const tt_choice *c, int32_t n)
{
    int64_t width = c->view.features.width;
    float *v = malloc((size_t)(n * width) * sizeof *v + 1);
    for (int32_t i = 0; v && i < n; i++)
        tt_encode_vector(c, i, width, false, v + i * width);
    return v;
}

double tt_encode_likeness(const tt_gen *g, const tt_choice *query, const tt_choice *passage)
{
    int32_t n = tt_encode_count(g, query), m = tt_encode_count(g, passage);
    int64_t width = query->view.features.width;
    float *a = unit_vectors(query, n), *b = unit_vectors(passage, m);
    double sum = a && b ? 0 : NAN;
    bool several = g->reading.pool == TT_POOL_OPEN;
    for (int32_t i = 0; i < n && a && b; i++) {
        double best = several ? 0 : -INFINITY;
        for (int32_t j = 0; j < m; j++)
            best = fmax(best, product(a + i * width, b + j * width, width));
        sum += best;
    }
    free(a);
    free(b);
    return sum;
}
