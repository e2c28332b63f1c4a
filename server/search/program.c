/* program.c - jurors that are programs: they are told of all candidates of a stage at once.
 *
 * The program is talked to on a thread of its own (scorer.h), so the candidates are copied: what
 * the search does meanwhile, or its end, does not touch them. */
#include <stdlib.h>
#include <string.h>

#include "server/base64.h"
#include "server/json_write.h"
#include "server/png.h"
#include "server/search/parts.h"

typedef struct {
    char *prompt;
    int32_t n, tokens, width, height;
    uint8_t *rgb;
    int32_t *id; /* n x tokens, -1 where there is none */
    float *logprob;
} batch;

static size_t picture_bytes(const batch *b)
{
    return (size_t)b->width * (size_t)b->height * 3;
}

static void batch_drop(void *arg)
{
    batch *b = arg;
    free(b->prompt);
    free(b->rgb);
    free(b->id);
    free(b->logprob);
    free(b);
}

static void put_candidate(const batch *b, int32_t i, tt_json *w)
{
    tt_buf png = {0}, text = {0};
    const int32_t *id = b->id + (int64_t)i * b->tokens;
    tt_png_encode(&png, b->rgb + (size_t)i * picture_bytes(b), b->width, b->height, 3, TT_PNG_FAST,
                  NULL, 0, NULL);
    tt_base64_put(&text, png.data, png.size);
    tt_json_open(w, '{');
    tt_json_key(w, "b64_json");
    tt_json_put_bytes(w, tt_buf_text(&text), text.size);
    tt_json_open_member(w, "tokens", '[');
    for (int32_t k = 0; k < b->tokens; k++)
        if (id[k] >= 0)
            tt_json_put_int(w, id[k]);
    tt_json_close(w, ']');
    tt_json_float_member(w, "logprob", b->logprob[i]);
    tt_json_close(w, '}');
    tt_buf_free(&png);
    tt_buf_free(&text);
}

static void batch_write(const void *arg, tt_buf *out)
{
    const batch *b = arg;
    tt_json w = {.out = out};
    tt_json_open(&w, '{');
    tt_json_text_member(&w, "prompt", b->prompt);
    tt_json_open_member(&w, "candidates", '[');
    for (int32_t i = 0; i < b->n; i++)
        put_candidate(b, i, &w);
    tt_json_close(&w, ']');
    tt_json_close(&w, '}');
}

static batch *batch_new(const tt_picture_search *s)
{
    const tt_codec_info *c = &s->run.codec->info;
    size_t n = (size_t)s->n_seen, tokens = (size_t)c->layout.tokens;
    batch *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    *b = (batch){.prompt = strdup(s->prompt),
                 .n = s->n_seen,
                 .tokens = c->layout.tokens,
                 .width = c->width,
                 .height = c->height,
                 .rgb = malloc(n * tt_ps_picture_bytes(s)),
                 .id = malloc(n * tokens * sizeof(int32_t)),
                 .logprob = malloc(n * sizeof(float))};
    if (b->prompt && b->rgb && b->id && b->logprob)
        return b;
    batch_drop(b);
    return NULL;
}

static void batch_fill(batch *b, const tt_picture_search *s)
{
    size_t bytes = picture_bytes(b);
    for (int32_t i = 0; i < b->n; i++) {
        const tt_node *n = s->nodes.list[tt_ps_held(&s->seen[i])];
        const tt_image_seq *q = &n->run.seq;
        int32_t *id = b->id + (int64_t)i * b->tokens;
        memcpy(b->rgb + (size_t)i * bytes, s->nodes.list[s->show[i]]->rgb, bytes);
        for (int32_t k = 0; k < b->tokens; k++)
            id[k] = q->id[k] == q->mask_id ? -1 : q->id[k];
        b->logprob[i] = tt_node_logprob(n);
    }
}

static tt_status ask(tt_picture_search *s, const tt_scorer *scorer, tt_err *e)
{
    batch *b = batch_new(s);
    if (!b)
        return tt_fail(e, TT_ENOMEM, "no memory for the candidates");
    batch_fill(b, s);
    tt_question q = {batch_write, batch_drop, b};
    return tt_scoring_begin(&s->asked, scorer, &q, s->n_seen, NULL, NULL, e);
}

tt_status tt_ps_ask_program(tt_picture_search *s, const tt_scorer *scorer, bool *waits, tt_err *e)
{
    tt_status st = s->asked ? TT_OK : ask(s, scorer, e);
    *waits = !st && !tt_scoring_done(s->asked);
    if (st || *waits)
        return st;
    st = tt_scoring_take(s->asked, s->score[s->juror], e);
    tt_scoring_end(s->asked);
    s->asked = NULL;
    tt_ps_count(s, &s->report.scored, s->n_seen);
    s->at = s->n_seen;
    return st;
}
