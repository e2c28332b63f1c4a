/* model.c - see model.h. */
#include "tokenizers/text/model.h"

#include <string.h>

tt_status tt_text_model_read_vocab(tt_vocab *v, const tt_doc *model, tt_err *e)
{
    tt_doc list;
    tt_status st = tt_doc_need(model, "vocab", &list, e);
    if (!st)
        st = tt_doc_is_object(&list, e);
    if (st)
        return st;
    for (tt_doc d = tt_doc_first(&list); d.item; d = tt_doc_next(&d)) {
        int64_t id = 0;
        int32_t old = -1;
        size_t bytes = strlen(d.key);
        st = tt_doc_int(&d, 0, TT_VOCAB_MAX - 1, &id, e);
        if (st)
            return st;
        if (tt_vocab_has(v, (int32_t)id))
            return tt_doc_fail(&d, TT_EFORMAT, e, "id %d is given twice", (int)id);
        if ((st = tt_vocab_add(v, (int32_t)id, d.key, bytes, 0, e)) ||
            (st = tt_vocab_index(v, (int32_t)id, d.key, bytes, &old, e)))
            return st;
        if (old >= 0)
            return tt_doc_fail(&d, TT_EFORMAT, e, "is there twice");
    }
    return TT_OK;
}

/* --- the kinds --- */

static tt_status open_bpe(tt_text_model *m, const tt_doc *d, tt_err *e)
{
    return tt_bpe_open(&m->bpe, &m->vocab, d, e);
}

static tt_status finish_bpe(tt_text_model *m, tt_err *e)
{
    return tt_bpe_finish(&m->bpe, &m->vocab, e);
}

static tt_status encode_bpe(const tt_text_model *m, tt_scratch *s, const char *piece, size_t bytes,
                            tt_ids *out, tt_err *e)
{
    return tt_bpe_encode(&m->bpe, &m->vocab, s, piece, bytes, out, e);
}

static void close_bpe(tt_text_model *m)
{
    tt_bpe_close(&m->bpe);
}

static tt_status open_wordpiece(tt_text_model *m, const tt_doc *d, tt_err *e)
{
    return tt_wordpiece_open(&m->wordpiece, &m->vocab, d, e);
}

static tt_status encode_wordpiece(const tt_text_model *m, tt_scratch *s, const char *piece,
                                  size_t bytes, tt_ids *out, tt_err *e)
{
    (void)s;
    return tt_wordpiece_encode(&m->wordpiece, piece, bytes, out, e);
}

static void close_wordpiece(tt_text_model *m)
{
    tt_wordpiece_close(&m->wordpiece);
}

static tt_status open_wordlevel(tt_text_model *m, const tt_doc *d, tt_err *e)
{
    return tt_wordlevel_open(&m->wordpiece, &m->vocab, d, e);
}

static tt_status encode_wordlevel(const tt_text_model *m, tt_scratch *s, const char *piece,
                                  size_t bytes, tt_ids *out, tt_err *e)
{
    (void)s;
    return tt_wordlevel_encode(&m->wordpiece, &m->vocab, piece, bytes, out, e);
}

static tt_status open_unigram(tt_text_model *m, const tt_doc *d, tt_err *e)
{
    return tt_unigram_open(&m->unigram, &m->vocab, d, e);
}

static tt_status encode_unigram(const tt_text_model *m, tt_scratch *s, const char *piece,
                                size_t bytes, tt_ids *out, tt_err *e)
{
    return tt_unigram_encode(&m->unigram, &m->vocab, s, piece, bytes, out, e);
}

static void close_unigram(tt_text_model *m)
{
    tt_unigram_close(&m->unigram);
}

static const tt_text_model_kind kinds[] = {
    /* BPE first: the one that works on bytes, too */
    {"BPE", "BPE", open_bpe, finish_bpe, encode_bpe, close_bpe},
    {"WordPiece", "WordPiece", open_wordpiece, NULL, encode_wordpiece, close_wordpiece},
    {"WordLevel", "WordLevel", open_wordlevel, NULL, encode_wordlevel, NULL},
    {"Unigram", "Unigram", open_unigram, NULL, encode_unigram, close_unigram},
};

/* Older files do not name the type: it shows in the members. */
static tt_status find_type(const tt_doc *d, const char **type, tt_err *e)
{
    tt_doc m, merges, vocab, prefix;
    size_t n;
    tt_status st = tt_doc_find(d, "type", &m, e);
    if (st || m.item)
        return st ? st : tt_doc_text(&m, type, &n, e);
    if ((st = tt_doc_find(d, "merges", &merges, e)) || (st = tt_doc_need(d, "vocab", &vocab, e)) ||
        (st = tt_doc_find(d, "continuing_subword_prefix", &prefix, e)))
        return st;
    *type = merges.item                 ? "BPE"
            : cJSON_IsArray(vocab.item) ? "Unigram"
            : prefix.item               ? "WordPiece"
                                        : "WordLevel";
    return TT_OK;
}

tt_status tt_text_model_open(tt_text_model *m, const tt_doc *d, bool byte_level, tt_err *e)
{
    const char *type;
    tt_doc vocab;
    tt_status st = find_type(d, &type, e);
    if (!st)
        st = tt_doc_need(d, "vocab", &vocab, e);
    if (st)
        return st;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(type, kinds[i].type))
            continue;
        if (byte_level && i)
            return tt_doc_fail(d, TT_EUNSUP, e, "a %s model behind ByteLevel", type);
        m->kind = &kinds[i];
        int n = cJSON_GetArraySize(vocab.item);
        st = tt_vocab_open(&m->vocab, n > 0 ? (size_t)n : 0, byte_level, e);
        return st ? st : kinds[i].open(m, d, e);
    }
    return tt_doc_fail(d, TT_EUNSUP, e, "unknown model type '%s'", type);
}

void tt_text_model_close(tt_text_model *m)
{
    if (m->kind && m->kind->close)
        m->kind->close(m);
    tt_vocab_close(&m->vocab);
    m->kind = NULL;
}
