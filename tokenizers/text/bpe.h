/* bpe.h - byte-pair encoding of one piece (Sennrich et al., arXiv 1508.07909).
 *
 * A piece starts as its characters (bytes, for byte-level vocabularies); then the adjacent pair
 * whose merge stands first in the list is joined, leftmost first, until none applies. Short
 * pieces are searched from end to end, long ones use a heap: n log n whatever the text. */
#ifndef TT_TEXT_BPE_H
#define TT_TEXT_BPE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "tokenizers/text.h"
#include "tokenizers/text/doc.h"
#include "tokenizers/text/junction.h"
#include "tokenizers/text/scratch.h"
#include "tokenizers/text/vocab.h"

typedef struct {
    int32_t left, right;
    int32_t rank; /* place in the list of merges; -1: empty slot */
    int32_t id;   /* what they join to */
} tt_merge;

typedef struct {
    tt_merge *merge; /* hash table, a power of two */
    size_t mask;
    int32_t unit[256];     /* id of a byte (byte-level) or of an ASCII character; -1 */
    int32_t unit_end[256]; /* the same at the end of a word, with its suffix */
    int32_t fallback[256]; /* id of <0xNN>, or -1 */
    bool byte_fallback;    /* unknown characters are spelled in bytes */
    bool ignore_merges;    /* a piece that is a token is taken whole */
    bool fuse_unk, has_unk;
    int32_t unk;     /* -1: named but not in the vocabulary */
    char prefix[32]; /* in front of all characters of a word but the first */
    char suffix[32]; /* behind the last: "</w>" */
    size_t prefix_bytes, suffix_bytes;
    tt_junctions *junctions; /* NULL: pieces are never cut (byte-level ones are short anyway) */
    /* Does the token's text encode to just itself? 0 not tried yet, 1 yes, 2 no. Filled in while
     * encoding; all threads find the same answer, so plain relaxed stores will do. */
    _Atomic uint8_t *whole;
} tt_bpe;

/* model: the object "model" of tokenizer.json; fills vocab, which must be open. */
tt_status tt_bpe_open(tt_bpe *b, tt_vocab *vocab, const tt_doc *model, tt_err *e);
/* To be called when all ids are known (added tokens included). */
tt_status tt_bpe_finish(tt_bpe *b, const tt_vocab *vocab, tt_err *e);
void tt_bpe_close(tt_bpe *b);

/* Appends the ids of one piece; raw bytes when the vocabulary is byte-level. */
tt_status tt_bpe_encode(const tt_bpe *b, const tt_vocab *vocab, tt_scratch *s, const char *piece,
                        size_t n, tt_ids *out, tt_err *e);

#endif
