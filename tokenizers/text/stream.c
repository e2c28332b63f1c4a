/* stream.c - ids to text, one at a time or all at once. tt_tok_decode is the stream run to its
 * end, so that both cannot differ.
 *
 * Bytes go through three gates: the token's contribution (decode.c); whole characters only, an
 * unfinished one waits in hold; and, for decoders that strip the whole text, signs at the
 * beginning are dropped and signs at the end wait until something else follows. */
#include <string.h>

#include "kernels/base/utf8.h"
#include "tokenizers/text/tok.h"

static bool at_sign(const tt_decode_step *strip, const char *p, size_t n)
{
    return n >= strip->sign_bytes && !memcmp(p, strip->sign, strip->sign_bytes);
}

/* The text that out holds from `from` on is whole; cuts and holds back signs at its ends. */
static void strip_ends(const tt_tok *t, tt_tok_stream *s, tt_buf *out, size_t from)
{
    const tt_decode_step *strip = &t->decoder.strip;
    size_t n = out->size - from, start = 0, stop = 0;
    if ((!strip->start && !strip->stop) || n == 0 || out->failed)
        return;
    char *p = out->data + from;
    while (s->cut < strip->start && at_sign(strip, p + start, n - start)) {
        start += strip->sign_bytes;
        s->cut++;
    }
    if (start < n)
        s->cut = UINT16_MAX;
    n -= start;
    memmove(p, p + start, n);
    while (stop < strip->stop && n >= (stop + 1) * strip->sign_bytes &&
           at_sign(strip, p + n - (stop + 1) * strip->sign_bytes, strip->sign_bytes))
        stop++;
    /* Signs from before come out as far as they are too many now, or something follows them. */
    bool signs_only = n == stop * strip->sign_bytes;
    size_t waiting = signs_only ? s->blanks + stop : stop;
    size_t keep = waiting < strip->stop ? waiting : strip->stop;
    size_t release = (signs_only ? 0 : s->blanks) + (waiting - keep);
    n -= stop * strip->sign_bytes;
    out->size = from + n;
    out->data[out->size] = '\0';
    if (release && tt_buf_reserve(out, release * strip->sign_bytes)) {
        p = out->data + from;
        memmove(p + release * strip->sign_bytes, p, n + 1);
        for (size_t i = 0; i < release; i++)
            memcpy(p + i * strip->sign_bytes, strip->sign, strip->sign_bytes);
        out->size += release * strip->sign_bytes;
    }
    s->blanks = (uint16_t)keep;
}

/* out holds new bytes from `from` on, behind those in hold: lets whole characters through. */
static void finish_chars(const tt_tok *t, tt_tok_stream *s, tt_buf *out, size_t from, bool end)
{
    if (out->failed || out->size == from)
        return;
    size_t n = out->size - from;
    size_t whole = end ? n : tt_utf8_complete(out->data + from, n);
    s->held = (uint8_t)(n - whole);
    memcpy(s->hold, out->data + from + whole, s->held);
    out->size = from + whole;
    out->data[out->size] = '\0';
    if (tt_utf8_valid(out->data + from, whole) < whole) {
        tt_buf repaired = {0};
        tt_utf8_repair(&repaired, out->data + from, whole);
        out->size = from;
        tt_buf_add(out, tt_buf_text(&repaired), repaired.size);
        out->failed |= repaired.failed;
        tt_buf_free(&repaired);
    }
    strip_ends(t, s, out, from);
}

/* SentencePiece drops blanks as long as no text has come out; the others look at the first token
 * alone. */
static bool still_first(const tt_tok *t, const char *content, size_t n, size_t made)
{
    const tt_decode_step *step = &t->decoder.step[0];
    if (!t->spm.active || made)
        return false;
    return step->drop_all || n < step->sign_bytes || memcmp(content, step->sign, step->sign_bytes);
}

static tt_status contribute(const tt_tok *t, tt_tok_stream *s, int32_t id, bool last, tt_buf *out,
                            tt_err *e)
{
    const tt_vocab *v = &t->model.vocab;
    size_t from = out->size;
    tt_buf_add(out, s->hold, s->held);
    size_t before = out->size;
    bool plain = (s->started || !t->decoder.by_first) && !(last && t->decoder.by_last);
    tt_status st = TT_OK;
    if (plain) {
        tt_buf_add(out, tt_buf_text(&v->piece) + v->token[id].piece_at, v->token[id].piece_bytes);
    } else {
        tt_scratch scratch = {0};
        st = tt_decoder_token(&t->decoder, v, &scratch, id, !s->started, last, out, e);
        tt_scratch_free(&scratch);
    }
    if (st)
        return st;
    if (!s->started)
        s->started = !still_first(t, tt_vocab_text(v, id), v->token[id].bytes, out->size - before);
    finish_chars(t, s, out, from, false);
    return out->failed ? tt_fail(e, TT_ENOMEM, "no memory for decoded text") : TT_OK;
}

tt_status tt_tok_stream_add(const tt_tok *t, tt_tok_stream *s, int32_t id, tt_buf *out, tt_err *e)
{
    if (!tt_vocab_has(&t->model.vocab, id))
        return tt_fail(e, TT_EINVAL, "token id %d is not in the vocabulary", id);
    if (s->skip_special && tt_tok_is_special(t, id))
        return TT_OK;
    if (!t->decoder.by_last)
        return contribute(t, s, id, false, out, e);
    tt_status st = s->has_last ? contribute(t, s, s->last, false, out, e) : TT_OK;
    s->has_last = true;
    s->last = id;
    return st;
}

void tt_tok_stream_end(const tt_tok *t, tt_tok_stream *s, tt_buf *out)
{
    if (s->has_last && contribute(t, s, s->last, true, out, NULL))
        out->failed = true;
    s->has_last = false;
    size_t from = out->size;
    tt_buf_add(out, s->hold, s->held);
    finish_chars(t, s, out, from, true);
    s->held = 0;
    s->blanks = 0;
}

tt_status tt_tok_decode(const tt_tok *t, const int32_t *id, size_t n, bool skip_special,
                        tt_buf *out, tt_err *e)
{
    tt_tok_stream s = {.skip_special = skip_special};
    for (size_t i = 0; i < n; i++) {
        tt_status st = tt_tok_stream_add(t, &s, id[i], out, e);
        if (st)
            return st;
    }
    tt_tok_stream_end(t, &s, out);
    return out->failed ? tt_fail(e, TT_ENOMEM, "no memory for decoded text") : TT_OK;
}
