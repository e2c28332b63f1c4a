/* post.c - see post.h. Processors are applied one after the other, each around the result of those
 * before it: what one puts in front goes before what is there already. */
#include "tokenizers/text/post.h"

#include <string.h>

enum { MAX_DEPTH = 8 };

static tt_status prepend(tt_ids *ids, const tt_ids *more, tt_err *e)
{
    tt_ids old = *ids;
    *ids = (tt_ids){0};
    tt_status st = tt_ids_add(ids, more->id, more->count, e);
    if (!st)
        st = tt_ids_add(ids, old.id, old.count, e);
    tt_ids_free(&old);
    return st;
}

static tt_status wrap(tt_post *p, const tt_ids *before, const tt_ids *after, tt_err *e)
{
    tt_status st = prepend(&p->before, before, e);
    return st ? st : tt_ids_add(&p->after, after->id, after->count, e);
}

static tt_status read_id(const tt_vocab *vocab, const tt_doc *d, int32_t *id, tt_err *e)
{
    int64_t v = -1;
    tt_status st = tt_doc_int(d, 0, INT32_MAX, &v, e);
    if (!st && !tt_vocab_has(vocab, (int32_t)v))
        st = tt_doc_fail(d, TT_EFORMAT, e, "id %d is not in the vocabulary", (int)v);
    *id = (int32_t)v;
    return st;
}

/* ["[CLS]", 101] */
static tt_status read_pair(const tt_vocab *vocab, const tt_doc *d, const char *key, tt_ids *out,
                           tt_err *e)
{
    tt_doc m;
    int32_t id;
    tt_status st = tt_doc_need(d, key, &m, e);
    if (!st)
        st = tt_doc_is_array(&m, e);
    if (st)
        return st;
    tt_doc x = tt_doc_first(&m), y = x.item ? tt_doc_next(&x) : x;
    if (!y.item)
        return tt_doc_fail(&m, TT_EFORMAT, e, "must be a token and its id");
    st = read_id(vocab, &y, &id, e);
    return st ? st : tt_ids_add(out, &id, 1, e);
}

static tt_status open_pair(tt_post *p, const tt_vocab *vocab, const tt_doc *d, tt_err *e)
{
    tt_ids cls = {0}, sep = {0};
    tt_status st = read_pair(vocab, d, "cls", &cls, e);
    if (!st)
        st = read_pair(vocab, d, "sep", &sep, e);
    if (!st)
        st = wrap(p, &cls, &sep, e);
    tt_ids_free(&cls);
    tt_ids_free(&sep);
    return st;
}

/* Appends the ids that the template's special token stands for. */
static tt_status template_token(const tt_vocab *vocab, const tt_doc *d, const tt_doc *specials,
                                tt_ids *out, tt_err *e)
{
    tt_doc m, entry, ids;
    const char *name;
    size_t n;
    tt_status st = tt_doc_need(d, "id", &m, e);
    if (st || (st = tt_doc_text(&m, &name, &n, e)) ||
        (st = tt_doc_need(specials, name, &entry, e)) ||
        (st = tt_doc_need(&entry, "ids", &ids, e)) || (st = tt_doc_is_array(&ids, e)))
        return st;
    for (tt_doc x = tt_doc_first(&ids); x.item && !st; x = tt_doc_next(&x)) {
        int32_t id;
        st = read_id(vocab, &x, &id, e);
        if (!st)
            st = tt_ids_add(out, &id, 1, e);
    }
    return st;
}

static tt_status read_template(const tt_vocab *vocab, const tt_doc *single, const tt_doc *specials,
                               tt_ids part[2], tt_err *e)
{
    int texts = 0;
    tt_status st = tt_doc_is_array(single, e);
    if (st)
        return st;
    for (tt_doc x = tt_doc_first(single); x.item && !st; x = tt_doc_next(&x)) {
        tt_doc special, text;
        if ((st = tt_doc_find(&x, "SpecialToken", &special, e)) ||
            (st = tt_doc_find(&x, "Sequence", &text, e)))
            return st;
        if (!special.item == !text.item || (text.item && texts))
            return tt_doc_fail(&x, TT_EUNSUP, e, "a template is special tokens around one text");
        if (special.item)
            st = template_token(vocab, &special, specials, &part[texts], e);
        else
            texts++;
    }
    return st || texts ? st : tt_doc_fail(single, TT_EFORMAT, e, "the template drops the text");
}

static tt_status open_template(tt_post *p, const tt_vocab *vocab, const tt_doc *d, tt_err *e)
{
    tt_doc single, specials;
    tt_ids part[2] = {{0}, {0}};
    tt_status st = tt_doc_need(d, "single", &single, e);
    if (!st)
        st = tt_doc_need(d, "special_tokens", &specials, e);
    if (!st)
        st = read_template(vocab, &single, &specials, part, e);
    if (!st)
        st = wrap(p, &part[0], &part[1], e);
    tt_ids_free(&part[0]);
    tt_ids_free(&part[1]);
    return st;
}

static tt_status open_one(tt_post *p, const tt_vocab *vocab, const tt_doc *d, int depth, tt_err *e)
{
    const char *type;
    tt_status st = tt_doc_type(d, &type, e);
    if (st)
        return st;
    if (!strcmp(type, "ByteLevel"))
        return TT_OK; /* offsets only */
    if (!strcmp(type, "TemplateProcessing"))
        return open_template(p, vocab, d, e);
    if (!strcmp(type, "BertProcessing") || !strcmp(type, "RobertaProcessing"))
        return open_pair(p, vocab, d, e);
    if (strcmp(type, "Sequence"))
        return tt_doc_fail(d, TT_EUNSUP, e, "unknown post-processor '%s'", type);
    tt_doc list;
    st = depth < MAX_DEPTH ? tt_doc_need(d, "processors", &list, e)
                           : tt_doc_fail(d, TT_EUNSUP, e, "nested too deep");
    if (!st)
        st = tt_doc_is_array(&list, e);
    for (tt_doc x = st ? (tt_doc){0} : tt_doc_first(&list); !st && x.item; x = tt_doc_next(&x))
        st = open_one(p, vocab, &x, depth + 1, e);
    return st;
}

tt_status tt_post_open(tt_post *p, const tt_vocab *vocab, const tt_doc *d, tt_err *e)
{
    return d->item ? open_one(p, vocab, d, 0, e) : TT_OK;
}

void tt_post_close(tt_post *p)
{
    tt_ids_free(&p->before);
    tt_ids_free(&p->after);
}
