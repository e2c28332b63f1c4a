/* split.c - see split.h. Cutting; split_open.c reads the file. */
#include "tokenizers/text/split_steps.h"

#include <string.h>

#include "kernels/base/utf8.h"
#include "tokenizers/text/bytes.h"
#include "tokenizers/text/unicode.h"

/* Hands a piece to the steps after step i. */
static tt_status hand_on(tt_split_run *r, int i, tt_piece p)
{
    if (p.bytes == 0)
        return TT_OK;
    if (i + 1 < r->split->steps)
        return r->split->step[i + 1].run(r, i + 1, p);
    return r->fn(r->to, p.text, p.bytes, r->e);
}

tt_status tt_split_text(tt_split_run *r, tt_piece p)
{
    return hand_on(r, -1, p);
}

/* --- what becomes of matches and of the text between them --- */

/* Parts come in order, matches and gaps; one part is held back while it may still grow. */
typedef struct {
    tt_split_run *r;
    int i;
    tt_piece whole;
    tt_behavior behavior;
    size_t start, end; /* the part held back */
    bool holding, held_match;
    bool after_match; /* the part before this one was a match */
} cutter;

static tt_status cut(cutter *c, size_t start, size_t end)
{
    return hand_on(c->r, c->i,
                   (tt_piece){c->whole.text + start, end - start, c->whole.first && start == 0});
}

static tt_status flush(cutter *c)
{
    if (!c->holding)
        return TT_OK;
    c->holding = false;
    return cut(c, c->start, c->end);
}

static tt_status hold(cutter *c, size_t start, size_t end, bool match)
{
    tt_status st = flush(c);
    c->holding = true;
    c->held_match = match;
    c->start = start;
    c->end = end;
    return st;
}

static tt_status add_part(cutter *c, size_t start, size_t end, bool match)
{
    bool after_match = c->after_match;
    c->after_match = match;
    switch (c->behavior) {
    case TT_REMOVED:
        return match ? TT_OK : cut(c, start, end);
    case TT_ISOLATED:
        return cut(c, start, end);
    case TT_CONTIGUOUS:
        if (c->holding && match == after_match) {
            c->end = end;
            return TT_OK;
        }
        return hold(c, start, end, match);
    case TT_MERGED_WITH_PREVIOUS:
        if (c->holding && match && !after_match) {
            c->end = end;
            return flush(c);
        }
        return hold(c, start, end, match);
    case TT_MERGED_WITH_NEXT:
        if (c->holding && c->held_match && !match) {
            c->end = end;
            return flush(c);
        }
        return hold(c, start, end, match);
    }
    return TT_OK;
}

/* --- cutting by a pattern or by kinds of characters --- */

static tt_status split_pattern(tt_split_run *r, int i, tt_piece p, const tt_split_step *s)
{
    cutter c = {.r = r, .i = i, .whole = p, .behavior = s->behavior};
    tt_regex_scan scan = {.text = p.text, .bytes = p.bytes};
    size_t done = 0;
    for (;;) {
        bool found;
        tt_status st = tt_pattern_next(&s->pattern, r->scratch, &scan, &found, r->e);
        if (st)
            return st;
        size_t gap_end = found ? scan.start : p.bytes;
        if (done < gap_end)
            st = add_part(&c, done, gap_end, s->invert);
        if (st || !found)
            return st ? st : flush(&c);
        st = add_part(&c, scan.start, scan.end, !s->invert);
        if (st)
            return st;
        done = scan.end;
    }
}

static tt_status split_chars(tt_split_run *r, int i, tt_piece p, const tt_split_step *s)
{
    cutter c = {.r = r, .i = i, .whole = p, .behavior = s->behavior};
    size_t done = 0;
    tt_status st = TT_OK;
    for (size_t at = 0, k; at < p.bytes && !st; at += k) {
        uint32_t cp;
        k = tt_utf8_decode(p.text + at, p.bytes - at, &cp);
        k = k ? k : 1;
        if (s->is ? !s->is(cp) : cp != s->delimiter)
            continue;
        if (done < at)
            st = add_part(&c, done, at, false);
        if (!st)
            st = add_part(&c, at, at + k, true);
        done = at + k;
    }
    if (!st && done < p.bytes)
        st = add_part(&c, done, p.bytes, false);
    return st ? st : flush(&c);
}

tt_status tt_split_by_pattern(tt_split_run *r, int i, tt_piece p)
{
    return split_pattern(r, i, p, &r->split->step[i]);
}

tt_status tt_split_by_chars(tt_split_run *r, int i, tt_piece p)
{
    return split_chars(r, i, p, &r->split->step[i]);
}

tt_status tt_split_by_length(tt_split_run *r, int i, tt_piece p)
{
    size_t from = 0, chars = 0;
    for (size_t at = 0, k; at < p.bytes; at += k) {
        k = tt_utf8_length(p.text + at, p.bytes - at);
        k = k ? k : 1;
        if (++chars < r->split->step[i].length && at + k < p.bytes)
            continue;
        tt_status st = hand_on(r, i, (tt_piece){p.text + from, at + k - from, p.first && !from});
        if (st)
            return st;
        from = at + k;
        chars = 0;
    }
    return TT_OK;
}

/* --- steps that change the text --- */

static tt_status changed(tt_split_run *r, const tt_buf *b, tt_piece *p)
{
    if (b->failed)
        return tt_fail(r->e, TT_ENOMEM, "no memory for a piece of %zu bytes", p->bytes);
    p->text = tt_buf_text(b);
    p->bytes = b->size;
    return TT_OK;
}

tt_status tt_split_byte_level(tt_split_run *r, int i, tt_piece p)
{
    const tt_split_step *s = &r->split->step[i];
    if (s->prefix_always && p.text[0] != ' ') {
        tt_buf *b = &r->scratch->split[i];
        tt_buf_clear(b);
        tt_buf_putc(b, ' ');
        tt_buf_add(b, p.text, p.bytes);
        tt_status st = changed(r, b, &p);
        if (st)
            return st;
    }
    return s->pattern.regex ? split_pattern(r, i, p, s) : hand_on(r, i, p);
}

/* ByteLevel with other steps behind it is two steps: the one above, and this. */
tt_status tt_split_spell(tt_split_run *r, int i, tt_piece p)
{
    tt_buf *b = &r->scratch->split[i];
    tt_buf_clear(b);
    tt_bytes_spell(b, p.text, p.bytes);
    tt_status st = changed(r, b, &p);
    return st ? st : hand_on(r, i, p);
}

tt_status tt_split_metaspace(tt_split_run *r, int i, tt_piece p)
{
    const tt_split_step *s = &r->split->step[i];
    char sign[4];
    size_t n = tt_utf8_encode(s->delimiter, sign);
    bool prefix = s->prefix_always || (s->prefix_first && p.first);
    bool has = p.text[0] == ' ' || (p.bytes >= n && !memcmp(p.text, sign, n));
    tt_buf *b = &r->scratch->split[i];
    tt_buf_clear(b);
    if (prefix && !has)
        tt_buf_add(b, sign, n);
    for (size_t at = 0; at < p.bytes;) {
        const char *blank = memchr(p.text + at, ' ', p.bytes - at);
        size_t run = blank ? (size_t)(blank - p.text) - at : p.bytes - at;
        tt_buf_add(b, p.text + at, run);
        if (blank)
            tt_buf_add(b, sign, n);
        at += run + (blank != NULL);
    }
    tt_status st = changed(r, b, &p);
    if (st)
        return st;
    return s->cut ? split_chars(r, i, p, s) : hand_on(r, i, p);
}
