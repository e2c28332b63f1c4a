/* spm_file.c - the wire format of sentencepiece_model.proto, as far as tokenizing needs it. Every
 * length is checked against what is left; unknown fields are skipped. */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/utf8.h"
#include "tokenizers/text/spm.h"
#include "tokenizers/text/vocab.h"

typedef struct {
    const unsigned char *p, *end, *begin; /* begin: of the file, for messages */
    const char *in;                       /* the message being read */
    tt_err *e;
} wire;

typedef struct {
    unsigned number, type;
    uint64_t value;   /* types 0, 1 and 5 */
    const char *data; /* type 2 */
    size_t bytes;
} field;

static tt_status broken(const wire *w, const char *what)
{
    return tt_fail(w->e, TT_EFORMAT, "SentencePiece file, byte %zu (%s): %s",
                   (size_t)(w->p - w->begin), w->in, what);
}

static tt_status read_varint(wire *w, uint64_t *out)
{
    *out = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (w->p == w->end)
            return broken(w, "a number is cut off");
        unsigned char c = *w->p++;
        *out |= (uint64_t)(c & 127) << shift;
        if (c < 128)
            return TT_OK;
    }
    return broken(w, "a number of more than 10 bytes");
}

static tt_status read_fixed(wire *w, int bytes, uint64_t *out)
{
    if (w->end - w->p < bytes)
        return broken(w, "a number is cut off");
    *out = 0;
    for (int i = 0; i < bytes; i++)
        *out |= (uint64_t)w->p[i] << (8 * i);
    w->p += bytes;
    return TT_OK;
}

static tt_status read_field(wire *w, field *f)
{
    uint64_t key, n;
    tt_status st = read_varint(w, &key);
    if (st)
        return st;
    if (key >> 3 == 0 || key >> 3 > 0x1FFFFFFF)
        return broken(w, "not a field number");
    *f = (field){.number = (unsigned)(key >> 3), .type = (unsigned)(key & 7)};
    switch (f->type) {
    case 0:
        return read_varint(w, &f->value);
    case 1:
        return read_fixed(w, 8, &f->value);
    case 5:
        return read_fixed(w, 4, &f->value);
    case 2:
        st = read_varint(w, &n);
        if (st)
            return st;
        if (n > (uint64_t)(w->end - w->p))
            return broken(w, "a field is longer than its message");
        f->data = (const char *)w->p;
        f->bytes = (size_t)n;
        w->p += n;
        return TT_OK;
    default:
        return broken(w, "an unknown wire type");
    }
}

static wire inside(const wire *w, const field *f, const char *name)
{
    const unsigned char *p = (const unsigned char *)f->data;
    return (wire){.p = p, .end = p + f->bytes, .begin = w->begin, .in = name, .e = w->e};
}

/* Fields of a known number must have the type that the definition gives them. */
static tt_status expect(const wire *w, const field *f, unsigned type)
{
    return f->type == type ? TT_OK : broken(w, "a field of the wrong type");
}

static tt_status read_piece(const wire *outer, const field *message, tt_spm_piece *p)
{
    wire w = inside(outer, message, "piece");
    *p = (tt_spm_piece){.text = "", .type = TT_SPM_NORMAL};
    while (w.p < w.end) {
        field f;
        tt_status st = read_field(&w, &f);
        if (!st && f.number >= 1 && f.number <= 3)
            st = expect(&w, &f, f.number == 1 ? 2 : f.number == 2 ? 5 : 0);
        if (st)
            return st;
        if (f.number == 1) {
            p->text = f.data;
            p->bytes = f.bytes;
        } else if (f.number == 2) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&p->score, &bits, 4);
        } else if (f.number == 3) {
            p->type = f.value >= 1 && f.value <= 6 ? (int)f.value : 0;
        }
    }
    if (p->bytes == 0 || tt_utf8_valid(p->text, p->bytes) < p->bytes)
        return broken(&w, "a piece that is empty or not UTF-8");
    if (p->type == 0 || !(p->score > -1e30f && p->score < 1e30f))
        return broken(&w, "a piece of unknown type or with a score out of range");
    return TT_OK;
}

static tt_status read_trainer(const wire *outer, const field *message, tt_spm_file *out)
{
    wire w = inside(outer, message, "trainer_spec");
    while (w.p < w.end) {
        field f;
        tt_status st = read_field(&w, &f);
        bool number =
            f.number == 3 || f.number == 24 || f.number == 35 || f.number == 41 || f.number == 42;
        if (!st && (number || f.number == 44))
            st = expect(&w, &f, number ? 0 : 2);
        if (st)
            return st;
        if (f.number == 3)
            out->model_type = f.value <= 4 ? (int)f.value : -1;
        else if (f.number == 24)
            out->as_suffix = f.value;
        else if (f.number == 35)
            out->byte_fallback = f.value;
        else if (f.number == 41)
            out->bos = (int64_t)f.value;
        else if (f.number == 42)
            out->eos = (int64_t)f.value;
        else if (f.number == 44) {
            out->unk_surface = f.data;
            out->unk_surface_bytes = f.bytes;
        }
    }
    if (tt_utf8_valid(out->unk_surface, out->unk_surface_bytes) < out->unk_surface_bytes)
        return broken(&w, "unk_surface is not UTF-8");
    return TT_OK;
}

static tt_status read_normalizer(const wire *outer, const field *message, tt_spm_file *out)
{
    wire w = inside(outer, message, "normalizer_spec");
    while (w.p < w.end) {
        field f;
        tt_status st = read_field(&w, &f);
        if (!st && f.number >= 2 && f.number <= 5)
            st = expect(&w, &f, f.number == 2 ? 2 : 0);
        if (st)
            return st;
        if (f.number == 2) {
            out->charsmap = f.data;
            out->charsmap_bytes = f.bytes;
        } else if (f.number == 3) {
            out->dummy_prefix = f.value;
        } else if (f.number == 4) {
            out->trim = f.value;
        } else if (f.number == 5) {
            out->escape = f.value;
        }
    }
    return TT_OK;
}

static tt_status add_piece(const wire *w, const field *f, tt_spm_file *out)
{
    if (out->pieces == TT_VOCAB_MAX)
        return broken(w, "too many pieces");
    if (out->pieces == out->room) {
        size_t room = out->room ? out->room * 2 : 4096;
        tt_spm_piece *piece = realloc(out->piece, room * sizeof *piece);
        if (!piece)
            return tt_fail(w->e, TT_ENOMEM, "no memory for %zu pieces", room);
        out->piece = piece;
        out->room = room;
    }
    return read_piece(w, f, &out->piece[out->pieces++]);
}

tt_status tt_spm_read(tt_spm_file *f, const void *data, size_t bytes, tt_err *e)
{
    *f = (tt_spm_file){.model_type = TT_SPM_UNIGRAM,
                       .dummy_prefix = true,
                       .trim = true,
                       .escape = true,
                       .bos = 1,
                       .eos = 2,
                       .unk_surface = " \xE2\x81\x87 ",
                       .unk_surface_bytes = 5};
    const unsigned char *p = data;
    wire w = {.p = p, .end = p + bytes, .begin = p, .in = "model", .e = e};
    tt_status st = TT_OK;
    while (!st && w.p < w.end) {
        field x;
        st = read_field(&w, &x);
        if (st || x.number > 3)
            continue;
        st = expect(&w, &x, 2);
        if (!st && x.number == 1)
            st = add_piece(&w, &x, f);
        else if (!st && x.number == 2)
            st = read_trainer(&w, &x, f);
        else if (!st)
            st = read_normalizer(&w, &x, f);
    }
    if (!st && !f->pieces)
        st = broken(&w, "no pieces");
    if (st)
        tt_spm_file_close(f);
    return st;
}

void tt_spm_file_close(tt_spm_file *f)
{
    free(f->piece);
    *f = (tt_spm_file){0};
}
