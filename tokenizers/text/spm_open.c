/* spm_open.c - a tokenizer from a SentencePiece file. Control symbols become special added tokens,
 * so that they are found in text only on request, as everywhere else. */
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizers/text/tok.h"

static bool findable(const tt_spm_piece *p)
{
    return p->type == TT_SPM_NORMAL || p->type == TT_SPM_USER || p->type == TT_SPM_UNUSED;
}

static tt_status add_control(tt_tok *t, const tt_spm_piece *p, int32_t id, tt_err *e)
{
    tt_added_token token = {.text = (char *)p->text, .bytes = p->bytes, .id = id, .special = true};
    return tt_added_add(&t->added, &t->model.vocab, &token, e);
}

static tt_status add_piece(tt_tok *t, const tt_spm_piece *p, int32_t id, tt_err *e)
{
    tt_unigram *u = &t->model.unigram;
    uint8_t flags = p->type == TT_SPM_BYTE      ? TT_TOKEN_BYTE
                    : p->type == TT_SPM_UNKNOWN ? TT_TOKEN_UNKNOWN
                                                : 0;
    int32_t old = -1;
    u->score[id] = p->score;
    tt_status st = tt_vocab_add(&t->model.vocab, id, p->text, p->bytes, flags, e);
    if (!st && findable(p))
        st = tt_vocab_index(&t->model.vocab, id, p->text, p->bytes, &old, e);
    if (!st && old >= 0)
        st = tt_fail(e, TT_EFORMAT, "pieces %d and %d are the same", old, id);
    if (!st && (p->type == TT_SPM_CONTROL || p->type == TT_SPM_UNKNOWN))
        st = add_control(t, p, id, e);
    if (p->type == TT_SPM_UNKNOWN)
        u->unk = id;
    if (!st && p->type == TT_SPM_BYTE) {
        int byte = tt_decode_byte_code(p->text, p->bytes);
        if (byte < 0)
            return tt_fail(e, TT_EFORMAT, "piece %d is no byte", id);
        u->fallback[byte] = id;
    }
    return st;
}

static tt_status build_tries(tt_tok *t, const tt_spm_file *f, tt_err *e)
{
    const tt_vocab *v = &t->model.vocab;
    tt_unigram *u = &t->model.unigram;
    tt_trie_item *all = malloc(2 * f->pieces * sizeof *all);
    if (!all)
        return tt_fail(e, TT_ENOMEM, "no memory for %zu pieces", f->pieces);
    tt_trie_item *user = all + f->pieces;
    size_t n = 0, users = 0, longest = 0;
    for (size_t i = 0; i < f->pieces; i++) {
        const tt_spm_piece *p = &f->piece[i];
        tt_trie_item item = {v->token[i].at, p->bytes, (int32_t)i};
        if (p->type == TT_SPM_USER)
            user[users++] = item;
        if (p->type == TT_SPM_NORMAL || p->type == TT_SPM_USER)
            all[n++] = item;
        if (findable(p) && p->bytes > longest)
            longest = p->bytes;
    }
    bool unigram = t->model.kind == &tt_text_model_spm_unigram;
    tt_status st = tt_trie_open(&u->user, tt_buf_text(&v->text), user, users, false, e);
    if (!st && unigram)
        st = tt_trie_open(&u->trie, tt_buf_text(&v->text), all, n, false, e);
    u->trie.longest = longest;
    free(all);
    return st;
}

/* Two pieces may join where their characters stand side by side in some piece. */
static tt_status note_junctions(tt_text_model *m, const tt_spm_file *f, tt_err *e)
{
    tt_junctions *j = m->unigram.junctions = calloc(1, sizeof *j);
    if (!j)
        return tt_fail(e, TT_ENOMEM, "no memory for %zu pieces", f->pieces);
    for (size_t i = 0; i < f->pieces; i++) {
        const tt_spm_piece *p = &f->piece[i];
        uint32_t left, right;
        size_t at = findable(p) ? tt_utf8_decode(p->text, p->bytes, &left) : p->bytes;
        for (; at < p->bytes; left = right) {
            at += tt_utf8_decode(p->text + at, p->bytes - at, &right);
            tt_junction_add(j, left, right);
        }
    }
    return TT_OK;
}

/* User-defined symbols score just below 0, so that they always win (0.1 is the released code's);
 * an unknown character costs 10 more than the rarest piece. */
static void score_specials(tt_unigram *u, const tt_spm_file *f)
{
    float least = FLT_MAX, most = FLT_MIN;
    for (size_t i = 0; i < f->pieces; i++) {
        if (f->piece[i].type != TT_SPM_NORMAL)
            continue;
        if (f->piece[i].score < least)
            least = f->piece[i].score;
        if (f->piece[i].score > most)
            most = f->piece[i].score;
    }
    u->unk_score = (double)(least - 10.0f);
    for (size_t i = 0; i < f->pieces; i++)
        if (f->piece[i].type == TT_SPM_USER)
            u->score[i] = (double)((float)f->piece[i].bytes * most) - 0.1;
}

static tt_status read_model(tt_tok *t, const tt_spm_file *f, tt_err *e)
{
    tt_unigram *u = &t->model.unigram;
    *u = (tt_unigram){.unk = -1, .single = true, .byte_fallback = f->byte_fallback};
    memset(u->fallback, -1, sizeof u->fallback);
    if (f->model_type == TT_SPM_UNIGRAM)
        t->model.kind = &tt_text_model_spm_unigram;
    else if (f->model_type == TT_SPM_BPE)
        t->model.kind = &tt_text_model_spm_bpe;
    else
        return tt_fail(e, TT_EUNSUP, "SentencePiece model type %d (word or char)", f->model_type);
    tt_status st = tt_vocab_open(&t->model.vocab, f->pieces, false, e);
    u->score = malloc(f->pieces * sizeof *u->score);
    if (!st && !u->score)
        st = tt_fail(e, TT_ENOMEM, "no memory for %zu pieces", f->pieces);
    for (size_t i = 0; i < f->pieces && !st; i++) {
        if (f->piece[i].type == TT_SPM_UNUSED && f->model_type == TT_SPM_BPE)
            st = tt_fail(e, TT_EUNSUP, "piece %zu: unused pieces in a BPE model", i);
        else
            st = add_piece(t, &f->piece[i], (int32_t)i, e);
    }
    if (!st && u->unk < 0)
        st = tt_fail(e, TT_EFORMAT, "no piece for unknown text");
    if (!st)
        st = build_tries(t, f, e);
    if (!st && f->model_type == TT_SPM_UNIGRAM)
        score_specials(u, f);
    if (!st && f->model_type == TT_SPM_BPE)
        st = note_junctions(&t->model, f, e);
    return st;
}

/* The template of SentencePiece tokenizers is two flags in tokenizer_config.json. */
static tt_status read_flags(tt_tok *t, const tt_doc *config, tt_err *e)
{
    bool bos = false, eos = false;
    tt_status st = TT_OK;
    if (config->item && ((st = tt_doc_get_bool(config, "add_bos_token", &bos, e)) ||
                         (st = tt_doc_get_bool(config, "add_eos_token", &eos, e))))
        return st;
    if (bos && t->bos >= 0)
        st = tt_ids_add(&t->post.before, &t->bos, 1, e);
    if (!st && eos && t->eos >= 0)
        st = tt_ids_add(&t->post.after, &t->eos, 1, e);
    return st;
}

static int32_t control_id(const tt_spm_file *f, int64_t id)
{
    return id >= 0 && (uint64_t)id < f->pieces && f->piece[id].type == TT_SPM_CONTROL ? (int32_t)id
                                                                                      : -1;
}

tt_status tt_tok_read_spm(tt_tok *t, const void *data, size_t bytes, const tt_doc *config,
                          tt_err *e)
{
    tt_spm_file f;
    tt_status st = tt_spm_read(&f, data, bytes, e);
    if (st)
        return st;
    st = read_model(t, &f, e);
    if (!st)
        st = tt_charsmap_open(&t->spm.map, f.charsmap, f.charsmap_bytes, e);
    if (!st) {
        t->spm.active = true;
        t->spm.user = &t->model.unigram.user;
        t->spm.dummy_prefix = f.dummy_prefix;
        t->spm.trim = f.trim;
        t->spm.escape = f.escape;
        t->spm.as_suffix = f.as_suffix;
        t->bos = control_id(&f, f.bos);
        t->eos = control_id(&f, f.eos);
        st = tt_decoder_open_spm(&t->decoder, f.dummy_prefix, f.trim, f.unk_surface,
                                 f.unk_surface_bytes, e);
    }
    if (!st)
        st = read_flags(t, config, e);
    tt_spm_file_close(&f);
    return st;
}
