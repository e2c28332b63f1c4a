/* decode_open.c - reads the decoder of a tokenizer.json.
 *
 * Up to "Fuse" (or ByteLevel, which joins bytes) the steps work on single tokens. Behind it only
 * two things occur and are supported: Strip at the ends of the whole text, and Replace of one
 * character, which is the same before and after joining. */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/utf8.h"
#include "tokenizers/text/decode_steps.h"

typedef struct {
    tt_decoder *dec;
    bool joined;
} reader;

static tt_status keep_text(tt_decode_step *s, const char *text, size_t n, tt_err *e)
{
    s->text = malloc(n + 1);
    if (!s->text)
        return tt_fail(e, TT_ENOMEM, "no memory for a decoder");
    memcpy(s->text, text, n);
    s->text[n] = '\0';
    s->bytes = n;
    return TT_OK;
}

static tt_status read_text(tt_decode_step *s, const tt_doc *d, const char *key, const char *usual,
                           tt_err *e)
{
    const char *text = usual;
    size_t n = strlen(usual);
    tt_status st = tt_doc_get_text(d, key, &text, &n, e);
    return st ? st : keep_text(s, text, n, e);
}

static tt_status read_sign(tt_decode_step *s, const tt_doc *d, const char *key, const char *usual,
                           tt_err *e)
{
    const char *text = usual;
    size_t n = strlen(usual);
    tt_status st = tt_doc_get_text(d, key, &text, &n, e);
    if (st)
        return st;
    if (n == 0 || tt_utf8_length(text, n) != n)
        return tt_doc_fail(d, TT_EFORMAT, e, "%s '%s' is not one character", key, text);
    memcpy(s->sign, text, n);
    s->sign_bytes = n;
    return TT_OK;
}

static tt_status open_byte_level(reader *r, tt_decode_step *s, const tt_doc *d, tt_err *e)
{
    (void)s, (void)d, (void)e;
    r->joined = true;
    return TT_OK;
}

static tt_status open_metaspace(reader *r, tt_decode_step *s, const tt_doc *d, tt_err *e)
{
    const char *scheme = NULL;
    size_t n;
    bool prefix = true;
    tt_status st = read_sign(s, d, "replacement", "\xE2\x96\x81", e);
    if (st || (st = tt_doc_get_bool(d, "add_prefix_space", &prefix, e)) ||
        (st = tt_doc_get_text(d, "prepend_scheme", &scheme, &n, e)))
        return st;
    s->drop_first = scheme ? strcmp(scheme, "never") != 0 : prefix;
    r->dec->by_first |= s->drop_first;
    return TT_OK;
}

static tt_status open_wordpiece(reader *r, tt_decode_step *s, const tt_doc *d, tt_err *e)
{
    s->cleanup = true;
    r->dec->by_first = true;
    tt_status st = tt_doc_get_bool(d, "cleanup", &s->cleanup, e);
    return st ? st : read_text(s, d, "prefix", "##", e);
}

static tt_status open_bpe_suffix(reader *r, tt_decode_step *s, const tt_doc *d, tt_err *e)
{
    r->dec->by_last = true;
    return read_text(s, d, "suffix", "</w>", e);
}

static tt_status open_strip(reader *r, tt_decode_step *s, const tt_doc *d, tt_err *e)
{
    int64_t start = 0, stop = 0;
    tt_status st = read_sign(s, d, "content", " ", e);
    if (st || (st = tt_doc_get_int(d, "start", 0, 1000, &start, e)) ||
        (st = tt_doc_get_int(d, "stop", 0, 1000, &stop, e)))
        return st;
    s->start = (unsigned)start;
    s->stop = (unsigned)stop;
    if (!r->joined)
        return TT_OK;
    if (r->dec->strip.start || r->dec->strip.stop)
        return tt_doc_fail(d, TT_EUNSUP, e, "a second Strip of the whole text");
    r->dec->strip = *s;
    r->dec->steps--; /* it is none of a token's */
    return TT_OK;
}

static tt_status open_replace(reader *r, tt_decode_step *s, const tt_doc *d, tt_err *e)
{
    tt_doc m;
    tt_status st = tt_doc_need(d, "pattern", &m, e);
    if (!st)
        st = tt_pattern_open(&s->pattern, &m, e);
    if (!st && r->joined &&
        (s->pattern.regex || tt_utf8_length(s->pattern.text, s->pattern.bytes) != s->pattern.bytes))
        return tt_doc_fail(d, TT_EUNSUP, e, "replacing more than one character behind Fuse");
    return st ? st : read_text(s, d, "content", "", e);
}

static const struct {
    const char *type;
    tt_decode_fn *run;
    tt_status (*open)(reader *r, tt_decode_step *s, const tt_doc *d, tt_err *e);
    bool joined_too; /* may stand behind Fuse */
} kinds[] = {
    {"ByteLevel", tt_decode_byte_level, open_byte_level, false},
    {"ByteFallback", tt_decode_byte_fallback, NULL, false},
    {"Metaspace", tt_decode_metaspace, open_metaspace, false},
    {"WordPiece", tt_decode_wordpiece, open_wordpiece, false},
    {"BPEDecoder", tt_decode_bpe_suffix, open_bpe_suffix, false},
    {"Strip", tt_decode_strip, open_strip, true},
    {"Replace", tt_decode_replace, open_replace, true},
};

static tt_status open_step(reader *r, const tt_doc *d, int depth, tt_err *e)
{
    const char *type;
    tt_status st = tt_doc_type(d, &type, e);
    if (st)
        return st;
    if (!strcmp(type, "Fuse")) {
        r->joined = true;
        return TT_OK;
    }
    if (!strcmp(type, "Sequence")) {
        tt_doc list;
        st = depth < TT_MAX_STEPS ? tt_doc_need(d, "decoders", &list, e)
                                  : tt_doc_fail(d, TT_EUNSUP, e, "nested too deep");
        if (!st)
            st = tt_doc_is_array(&list, e);
        for (tt_doc x = st ? (tt_doc){0} : tt_doc_first(&list); !st && x.item; x = tt_doc_next(&x))
            st = open_step(r, &x, depth + 1, e);
        return st;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(type, kinds[i].type))
            continue;
        if (r->joined && !kinds[i].joined_too)
            return tt_doc_fail(d, TT_EUNSUP, e, "decoder '%s' behind Fuse or ByteLevel", type);
        if (r->dec->steps == TT_MAX_STEPS)
            return tt_doc_fail(d, TT_EUNSUP, e, "more than %d decoders", TT_MAX_STEPS);
        tt_decode_step *s = &r->dec->step[r->dec->steps++];
        *s = (tt_decode_step){.run = kinds[i].run};
        return kinds[i].open ? kinds[i].open(r, s, d, e) : TT_OK;
    }
    return tt_doc_fail(d, TT_EUNSUP, e, "unknown decoder '%s'", type);
}

tt_status tt_decoder_open(tt_decoder *dec, const tt_doc *d, tt_err *e)
{
    *dec = (tt_decoder){0};
    if (!d->item) {
        dec->step[dec->steps++].run = tt_decode_blank;
        dec->by_first = true;
        return TT_OK;
    }
    reader r = {.dec = dec};
    return open_step(&r, d, 0, e);
}

tt_status tt_decoder_open_spm(tt_decoder *dec, bool dummy, bool trim, const char *unk,
                              size_t unk_bytes, tt_err *e)
{
    *dec = (tt_decoder){.steps = 1, .by_first = true};
    dec->step[0] = (tt_decode_step){.run = tt_decode_spm,
                                    .sign = "\xE2\x96\x81",
                                    .sign_bytes = 3,
                                    .drop_first = dummy || trim,
                                    .drop_all = trim};
    return keep_text(&dec->step[0], unk, unk_bytes, e);
}

void tt_decoder_close(tt_decoder *dec)
{
    for (int i = 0; i < dec->steps; i++) {
        tt_pattern_close(&dec->step[i].pattern);
        free(dec->step[i].text);
    }
    *dec = (tt_decoder){0};
}
