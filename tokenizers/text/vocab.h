/* vocab.h - token ids and their texts.
 *
 * Ids come from the file: they may leave holes and need not begin at 0. A token has up to two
 * texts: content as written in the file, and piece, the bytes it contributes in the middle of a
 * decoded text. The map finds model tokens by the form in which the model meets them: raw bytes
 * for byte-level vocabularies, else the content. */
#ifndef TT_TEXT_VOCAB_H
#define TT_TEXT_VOCAB_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/buf.h"
#include "kernels/base/err.h"
#include "kernels/base/map.h"

enum { TT_VOCAB_MAX = 1 << 24 }; /* ids beyond this are a broken or hostile file */

enum {
    TT_TOKEN_USED = 1,
    TT_TOKEN_ADDED = 2,   /* listed under added_tokens */
    TT_TOKEN_SPECIAL = 4, /* a control token */
    TT_TOKEN_BYTE = 8,    /* stands for one byte: <0x41> */
    TT_TOKEN_UNKNOWN = 16 /* SentencePiece's <unk>, shown as " ⁇ " */
};

typedef struct {
    uint32_t at, bytes;             /* in text */
    uint32_t piece_at, piece_bytes; /* in piece */
    uint8_t flags;
} tt_token;

typedef struct {
    tt_token *token; /* by id */
    int32_t n;       /* highest id + 1 */
    size_t room;
    tt_buf text, piece;
    tt_map *map;
    bool byte_level; /* map keys are raw bytes */
} tt_vocab;

tt_status tt_vocab_open(tt_vocab *v, size_t expect, bool byte_level, tt_err *e);
void tt_vocab_close(tt_vocab *v);

/* A new id with its content. The id must be free and within 0 .. TT_VOCAB_MAX - 1. */
tt_status tt_vocab_add(tt_vocab *v, int32_t id, const char *text, size_t bytes, uint8_t flags,
                       tt_err *e);
/* Makes the content findable; *old (may be NULL) is the id it had before, or -1. Byte-level
 * contents outside the alphabet cannot occur in text and are left out. */
tt_status tt_vocab_index(tt_vocab *v, int32_t id, const char *text, size_t bytes, int32_t *old,
                         tt_err *e);

static inline bool tt_vocab_has(const tt_vocab *v, int32_t id)
{
    return id >= 0 && id < v->n && v->token[id].flags & TT_TOKEN_USED;
}

static inline const char *tt_vocab_text(const tt_vocab *v, int32_t id)
{
    return tt_buf_text(&v->text) + v->token[id].at;
}

/* By the form in which the model meets it; -1 when there is none. */
static inline int32_t tt_vocab_get(const tt_vocab *v, const char *key, size_t bytes)
{
    return tt_map_get(v->map, key, bytes);
}

/* By content as written in the file; -1 when there is none. */
int32_t tt_vocab_find(const tt_vocab *v, const char *text, size_t bytes);

#endif
