/* rerank.c - POST /v1/rerank, documents ordered by their likeness to a query, and POST /v1/score,
 * likeness of pairs of texts; both in the shape other servers answer in. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "server/api/read.h"

/* --- rerank --- */

static tt_status document_text(const cJSON *m, const char *path, const char **text, tt_err *e)
{
    const cJSON *inner = cJSON_IsObject(m) ? tt_json_get(m, "text") : m;
    tt_json_path at = tt_json_member(path, "text");
    if (!inner)
        return tt_fail_param(e, at.text, "missing_required_parameter", "'%s' is missing", at.text);
    return tt_json_text(inner, inner == m ? path : at.text, text, e);
}

static tt_status add_documents(tt_gen *g, const cJSON *list, tt_err *e)
{
    const cJSON *m;
    int i = 0, n = cJSON_GetArraySize(list);
    g->reading.text = calloc((size_t)n, sizeof *g->reading.text);
    if (!g->reading.text)
        return tt_fail(e, TT_ENOMEM, "no memory for the documents");
    cJSON_ArrayForEach(m, list)
    {
        tt_json_path path = tt_json_element("documents", i);
        const char *text = NULL;
        tt_status s = document_text(m, path.text, &text, e);
        if (!s && g->reading.documents) {
            g->reading.text[i] = tt_gen_keep(g, text, strlen(text));
            s = g->reading.text[i] ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for the documents");
        }
        if (!s)
            s = tt_encode_add(g, true, text, NULL, path.text, e);
        if (s)
            return s;
        i++;
    }
    return TT_OK;
}

static tt_status read_rerank(tt_gen *g, const cJSON *body, tt_err *e)
{
    const char *query = tt_field_text(body, "query", NULL);
    const cJSON *documents = tt_json_get(body, "documents");
    if (!query)
        return tt_fail_param(e, "query", "missing_required_parameter", "'query' is missing");
    if (!documents || !documents->child)
        return tt_fail_param(e, "documents",
                             documents ? "invalid_value" : "missing_required_parameter",
                             "'documents' is %s", documents ? "empty" : "missing");
    g->reading.top_n = (int32_t)tt_field_int(body, "top_n", 0);
    g->reading.documents = tt_field_bool(body, "return_documents", true);
    tt_status s = tt_encode_read(g, body, e);
    if (!s)
        s = tt_encode_add(g, false, query, NULL, "query", e);
    g->reading.queries = 1;
    return s ? s : add_documents(g, documents, e);
}

typedef struct {
    double score;
    int index;
} ranked;

static int by_score(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static void write_results(const tt_gen *g, ranked *list, int n, tt_json *w)
{
    int most = g->reading.top_n && g->reading.top_n < n ? g->reading.top_n : n;
    tt_json_open_member(w, "results", '[');
    for (int i = 0; i < most; i++) {
        tt_json_open(w, '{');
        tt_json_int_member(w, "index", list[i].index);
        tt_json_float_member(w, "relevance_score", list[i].score);
        if (g->reading.documents) {
            tt_json_open_member(w, "document", '{');
            tt_json_text_member(w, "text", g->reading.text[list[i].index]);
            tt_json_close(w, '}');
        }
        tt_json_close(w, '}');
    }
    tt_json_close(w, ']');
}

static void rerank_answer(const tt_gen *g, tt_json *w)
{
    int n = g->choices - 1;
    ranked *list = calloc((size_t)n, sizeof *list);
    for (int i = 0; i < n && list; i++)
        list[i] = (ranked){tt_encode_likeness(g, &g->choice[0], &g->choice[i + 1]), i};
    tt_json_open(w, '{');
    tt_json_text_member(w, "id", g->id);
    tt_json_text_member(w, "model", g->model->id);
    if (list) {
        qsort(list, (size_t)n, sizeof *list, by_score);
        write_results(g, list, n, w);
    }
    tt_read_write_end(g, w);
    tt_json_close(w, '}');
    w->out->failed |= !list;
    free(list);
}

const tt_endpoint tt_endpoint_rerank = {
    .on = TT_ON_RERANK,
    .reads = true,
    .id_prefix = "rerank-",
    .object = "list",
    .read = read_rerank,
    .answer = rerank_answer,
};

/* --- score --- */

static int texts_of(const cJSON *node)
{
    return cJSON_IsArray(node) ? cJSON_GetArraySize(node) : 1;
}

static tt_status add_all(tt_gen *g, const cJSON *node, bool passage, const char *name, tt_err *e)
{
    const cJSON *m;
    int i = 0;
    if (cJSON_IsString(node))
        return tt_encode_add(g, passage, node->valuestring, NULL, name, e);
    cJSON_ArrayForEach(m, node)
    {
        tt_status s = tt_encode_add(g, passage, m->valuestring, NULL,
                                    tt_json_element(name, i++).text, e);
        if (s)
            return s;
    }
    return TT_OK;
}

static tt_status read_score(tt_gen *g, const cJSON *body, tt_err *e)
{
    static const char *const names[] = {"text_1", "text_2"};
    const cJSON *text[2];
    int n[2];
    for (int i = 0; i < 2; i++) {
        text[i] = tt_json_get(body, names[i]);
        n[i] = text[i] ? texts_of(text[i]) : 0;
        if (!n[i])
            return tt_fail_param(e, names[i],
                                 text[i] ? "invalid_value" : "missing_required_parameter",
                                 "'%s' is %s", names[i], text[i] ? "empty" : "missing");
    }
    if (n[0] != 1 && n[0] != n[1])
        return tt_fail_param(e, "text_1", "invalid_value",
                             "'text_1' has %d texts; it must have one, or %d as 'text_2'", n[0],
                             n[1]);
    tt_status s = tt_encode_read(g, body, e);
    if (!s)
        s = add_all(g, text[0], false, names[0], e);
    g->reading.queries = n[0];
    return s ? s : add_all(g, text[1], true, names[1], e);
}

static void score_answer(const tt_gen *g, tt_json *w)
{
    int queries = g->reading.queries, n = g->choices - queries;
    tt_json_open(w, '{');
    tt_json_text_member(w, "id", g->id);
    tt_json_text_member(w, "object", "list");
    tt_json_int_member(w, "created", g->created);
    tt_json_text_member(w, "model", g->model->id);
    tt_json_open_member(w, "data", '[');
    for (int i = 0; i < n; i++) {
        const tt_choice *query = &g->choice[queries == 1 ? 0 : i];
        tt_json_open(w, '{');
        tt_json_int_member(w, "index", i);
        tt_json_text_member(w, "object", "score");
        tt_json_float_member(w, "score",
                             tt_encode_likeness(g, query, &g->choice[queries + i]));
        tt_json_close(w, '}');
    }
    tt_json_close(w, ']');
    tt_read_write_end(g, w);
    tt_json_close(w, '}');
}

const tt_endpoint tt_endpoint_score = {
    .on = TT_ON_SCORE,
    .reads = true,
    .id_prefix = "score-",
    .object = "list",
    .read = read_score,
    .answer = score_answer,
};
