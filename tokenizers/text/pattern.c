/* pattern.c - see pattern.h. */
#include "tokenizers/text/pattern.h"

#include <stdlib.h>
#include <string.h>

tt_status tt_pattern_open(tt_pattern *p, const tt_doc *d, tt_err *e)
{
    *p = (tt_pattern){0};
    tt_doc text, regex;
    const char *s;
    tt_status st = tt_doc_find(d, "String", &text, e);
    if (!st)
        st = tt_doc_find(d, "Regex", &regex, e);
    if (st)
        return st;
    if (!text.item == !regex.item)
        return tt_doc_fail(d, TT_EFORMAT, e, "needs either String or Regex");
    const tt_doc *given = text.item ? &text : &regex;
    st = tt_doc_text(given, &s, &p->bytes, e);
    if (st)
        return st;
    if (regex.item) {
        char path[120];
        st = tt_regex_open(&p->regex, s, p->bytes, e);
        return st ? tt_context(e, st, "%s", tt_doc_path(&regex, path, sizeof path)) : TT_OK;
    }
    p->text = malloc(p->bytes + 1);
    if (!p->text)
        return tt_fail(e, TT_ENOMEM, "no memory for a pattern");
    memcpy(p->text, s, p->bytes + 1);
    return TT_OK;
}

void tt_pattern_close(tt_pattern *p)
{
    tt_regex_close(p->regex);
    free(p->text);
    *p = (tt_pattern){0};
}

tt_status tt_pattern_next(const tt_pattern *p, tt_scratch *w, tt_regex_scan *s, bool *found,
                          tt_err *e)
{
    if (p->regex) {
        tt_status st = w->matcher ? TT_OK : tt_matcher_open(&w->matcher, e);
        return st ? st : tt_regex_next(p->regex, w->matcher, s, found, e);
    }
    const char *at = p->bytes && s->from <= s->bytes
                         ? memmem(s->text + s->from, s->bytes - s->from, p->text, p->bytes)
                         : NULL;
    *found = at != NULL;
    if (at) {
        s->start = (size_t)(at - s->text);
        s->from = s->end = s->start + p->bytes;
    }
    return TT_OK;
}
