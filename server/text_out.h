/* text_out.h - from a sample's canvas to text that will not change.
 *
 * Tokens are committed in any order; readers want text from left to right. A tt_text_out covers
 * one stretch of columns (an answer, or one hole of a template). Every time it is fed a newer
 * view it takes the committed and settled columns next in line and decodes them into `text`. The
 * first `ready` bytes of it are safe to show: they never change, end at a character border, and
 * cannot turn out to be the beginning of a stop string. Fed once at the end or after every step,
 * the result is the same.
 *
 *     tt_text_out o = {.tok = tok, .begin = prompt, .end = columns, ...};
 *     while (!o.finish) {
 *         wait; tt_job_view(job, 0, &view);
 *         tt_text_out_feed(&o, &view, &err);
 *         if (o.hit_stop) tt_job_stop(job, 0);
 *         show o.text.data[shown .. o.ready];
 *     }
 *     tt_text_out_free(&o);
 *
 * One owner at a time; touches neither engine nor job. */
#ifndef TT_TEXT_OUT_H
#define TT_TEXT_OUT_H

#include "server/engine.h"

typedef struct {
    /* Set by the caller; what they point to must outlive this. */
    const tt_tok *tok;      /* NULL: columns are counted, text stays empty */
    int32_t begin, end;     /* columns covered */
    bool continues;         /* text comes before: a leading blank is kept */
    bool keep_special;      /* special tokens appear as their literal text */
    const int32_t *stop_id; /* ids that end the text and are not part of it */
    int stop_ids;
    const char *const *stop; /* strings that end the text and are not part of it */
    int stops;

    /* Results. */
    tt_buf text;
    size_t ready;     /* bytes of text that are final */
    int32_t tokens;   /* columns taken so far: begin .. begin + tokens - 1 */
    size_t *offset;   /* per token taken: where in text its characters begin */
    tt_finish finish; /* TT_FINISH_NONE while more may come */
    bool hit_stop;    /* a stop string ended it: the engine does not know yet */

    tt_tok_stream stream; /* private */
    int32_t capacity;     /* private: of offset */
} tt_text_out;

/* Takes what is new in the view. No-op once finished. TT_ENOMEM; TT_EINVAL when a committed id is
 * outside the vocabulary. */
tt_status tt_text_out_feed(tt_text_out *o, const tt_view *v, tt_err *e);
void tt_text_out_free(tt_text_out *o); /* forgets results and private state, keeps the settings */

/* Tokens whose text begins before byte `limit` of text; with limit = ready, those a reader may be
 * told about together with that text. */
int32_t tt_text_out_tokens_before(const tt_text_out *o, size_t limit);

/* The stretch as it looks now: appends its text with `placeholder` for every open column; special
 * tokens are left out unless keep_special. Once finished this is the final text. */
tt_status tt_text_out_draft(const tt_text_out *o, const tt_view *v, const char *placeholder,
                            tt_buf *out, tt_err *e);

#endif
