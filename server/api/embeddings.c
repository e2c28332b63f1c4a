/* embeddings.c - POST /v1/embeddings: vectors of texts in OpenAI's form.
 *
 * They are hidden states of a language model that was not trained to compare texts: pooled, or
 * with tutti.k as DiffRetriever (arXiv 2605.07210) takes them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "server/api/read.h"

static tt_status read_format(tt_gen *g, const cJSON *body, tt_err *e)
{
    const char *format = tt_field_text(body, "encoding_format", "float");
    int64_t width = g->model->info.width;
    g->reading.base64 = !strcmp(format, "base64");
    if (!g->reading.base64 && strcmp(format, "float"))
        return tt_fail_param(e, "encoding_format", "invalid_value",
                             "'encoding_format' is '%.40s', must be float or base64", format);
    g->reading.dimensions = tt_field_int(body, "dimensions", width);
    if (g->reading.dimensions > width)
        return tt_fail_param(e, "dimensions", "invalid_value",
                             "'dimensions' is %lld; vectors of model '%s' have %lld",
                             (long long)g->reading.dimensions, g->model->id, (long long)width);
    return TT_OK;
}

static tt_status add_input(tt_gen *g, bool passage, const cJSON *node, const char *path, tt_err *e)
{
    const char *text;
    tt_ids ids = {0};
    tt_status s = tt_read_text_or_ids(g, node, path, &text, &ids, e);
    if (!s)
        s = tt_encode_add(g, passage, text, &ids, path, e);
    tt_ids_free(&ids);
    return s;
}

static tt_status read_kind(const cJSON *body, bool *passage, tt_err *e)
{
    const char *kind = tt_field_text(tt_json_get(body, "tutti"), "kind", "query");
    *passage = !strcmp(kind, "passage");
    if (*passage || !strcmp(kind, "query"))
        return TT_OK;
    return tt_fail_param(e, "tutti.kind", "invalid_value",
                         "'tutti.kind' is '%.40s', must be query or passage", kind);
}

static tt_status read_embeddings(tt_gen *g, const cJSON *body, tt_err *e)
{
    const cJSON *m, *input = tt_json_get(body, "input");
    bool passage = false;
    int i = 0;
    tt_status s = read_format(g, body, e);
    if (!s)
        s = tt_encode_read(g, body, e);
    if (!s)
        s = read_kind(body, &passage, e);
    if (!s && (!input || (cJSON_IsArray(input) && !input->child)))
        s = tt_fail_param(e, "input", input ? "invalid_value" : "missing_required_parameter",
                          "'input' is %s", input ? "empty" : "missing");
    if (!s && (cJSON_IsString(input) || cJSON_IsNumber(input->child)))
        return add_input(g, passage, input, "input", e);
    cJSON_ArrayForEach(m, input)
    {
        if (!s)
            s = add_input(g, passage, m, tt_json_element("input", i++).text, e);
    }
    return s;
}

/* --- writing --- */

/* Little-endian float32, as OpenAI's clients decode it. */
static void put_base64(const float *v, int64_t n, tt_json *w)
{
    static const char sign[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    tt_buf b = {0};
    uint32_t bits = 0;
    int held = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t word;
        memcpy(&word, &v[i], sizeof word);
        for (int k = 0; k < 4; k++) {
            bits = bits << 8 | (word >> 8 * k & 255);
            for (held += 8; held >= 6; held -= 6)
                tt_buf_putc(&b, sign[bits >> (held - 6) & 63]);
        }
    }
    if (held)
        tt_buf_putc(&b, sign[bits << (6 - held) & 63]);
    while (b.size % 4)
        tt_buf_putc(&b, '=');
    tt_json_put_text(w, b.failed ? NULL : tt_buf_text(&b));
    tt_buf_free(&b);
}

static void put_vector(const tt_gen *g, const float *v, tt_json *w)
{
    int64_t n = g->reading.dimensions;
    if (g->reading.base64) {
        put_base64(v, n, w);
        return;
    }
    tt_json_open(w, '[');
    for (int64_t i = 0; i < n; i++)
        tt_json_put_float(w, (double)v[i]);
    tt_json_close(w, ']');
}

typedef struct {
    int32_t id, weight;
} term;

static int by_weight(const void *a, const void *b)
{
    const term *x = a, *y = b;
    if (x->weight != y->weight)
        return x->weight > y->weight ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Weights ln(1 + max(0, logit)) in hundredths, the greatest first; those of 0 are left out. */
static void put_sparse(const tt_gen *g, const tt_choice *c, int32_t i, tt_json *w)
{
    const tt_features *f = &c->view.features;
    term *list = calloc((size_t)f->terms + 1, sizeof *list);
    int32_t n = 0, most = g->reading.sparse_top;
    for (int32_t t = 0; list && t < f->terms; t++) {
        double logit = (double)f->logit[(size_t)i * (size_t)f->terms + (size_t)t];
        term x = {c->canvas->encoding.term[t], (int32_t)(100 * log1p(logit > 0 ? logit : 0))};
        if (x.weight > 0)
            list[n++] = x;
    }
    if (list)
        qsort(list, (size_t)n, sizeof *list, by_weight);
    n = n < most ? n : most;
    tt_json_open(w, '{');
    tt_json_open_member(w, "ids", '[');
    for (int32_t t = 0; t < n; t++)
        tt_json_put_int(w, list[t].id);
    tt_json_close(w, ']');
    tt_json_open_member(w, "weights", '[');
    for (int32_t t = 0; t < n; t++)
        tt_json_put_int(w, list[t].weight);
    tt_json_close(w, ']');
    tt_json_close(w, '}');
    free(list);
}

/* The words the model would have written, one per vector. */
static void put_words(const tt_gen *g, const tt_choice *c, int32_t n, tt_json *w)
{
    tt_json_open_member(w, "words", '[');
    for (int32_t at = 0; at < c->view.columns && n > 0; at++) {
        size_t bytes = 0;
        if (!c->canvas->open.data[at])
            continue;
        const char *p = tt_tok_piece(g->model->tok, c->view.id[at], &bytes);
        tt_json_put_bytes(w, p ? p : "", p ? bytes : 0);
        n--;
    }
    tt_json_close(w, ']');
}

static void put_several(const tt_gen *g, const tt_choice *c, float *v, tt_json *w)
{
    int32_t n = tt_encode_count(g, c);
    tt_json_open_member(w, "tutti", '{');
    put_words(g, c, n, w);
    if (g->reading.dense) {
        tt_json_open_member(w, "dense", '[');
        for (int32_t i = 0; i < n; i++) {
            tt_encode_vector(c, i, g->reading.dimensions, g->reading.raw, v);
            put_vector(g, v, w);
        }
        tt_json_close(w, ']');
    }
    if (g->reading.sparse) {
        tt_json_open_member(w, "sparse", '[');
        for (int32_t i = 0; i < n; i++)
            put_sparse(g, c, i, w);
        tt_json_close(w, ']');
    }
    tt_json_close(w, '}');
}

static void embeddings_answer(const tt_gen *g, tt_json *w)
{
    float *v = calloc((size_t)g->reading.dimensions, sizeof *v);
    tt_json_open(w, '{');
    tt_json_text_member(w, "object", "list");
    tt_json_open_member(w, "data", '[');
    for (int i = 0; i < g->choices && v; i++) {
        const tt_choice *c = &g->choice[i];
        tt_json_open(w, '{');
        tt_json_text_member(w, "object", "embedding");
        tt_json_int_member(w, "index", i);
        tt_json_key(w, "embedding");
        tt_encode_single(g, c, g->reading.dimensions, g->reading.raw, v);
        put_vector(g, v, w);
        if (g->reading.pool == TT_POOL_OPEN)
            put_several(g, c, v, w);
        tt_json_close(w, '}');
    }
    tt_json_close(w, ']');
    tt_json_text_member(w, "model", g->model->id);
    tt_read_write_end(g, w);
    tt_json_close(w, '}');
    w->out->failed |= !v;
    free(v);
}

const tt_endpoint tt_endpoint_embeddings = {
    .on = TT_ON_EMBEDDINGS,
    .reads = true,
    .id_prefix = "embd-",
    .object = "list",
    .read = read_embeddings,
    .answer = embeddings_answer,
};
