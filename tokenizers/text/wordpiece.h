/* wordpiece.h - WordPiece: the longest token that fits, again and again (BERT, arXiv 1810.04805);
 * and WordLevel: the whole piece or nothing. */
#ifndef TT_TEXT_WORDPIECE_H
#define TT_TEXT_WORDPIECE_H

#include <stdint.h>

#include "tokenizers/text.h"
#include "tokenizers/text/doc.h"
#include "tokenizers/text/scratch.h"
#include "tokenizers/text/vocab.h"

typedef struct {
    int32_t unk; /* -1: not in the vocabulary */
    char prefix[32];
    size_t prefix_bytes;
    size_t max_chars; /* a longer piece is one unk */
    size_t longest;   /* bytes of the longest token */
} tt_wordpiece;

tt_status tt_wordpiece_open(tt_wordpiece *w, tt_vocab *vocab, const tt_doc *model, tt_err *e);
tt_status tt_wordpiece_encode(const tt_wordpiece *w, const tt_vocab *vocab, tt_scratch *s,
                              const char *piece, size_t n, tt_ids *out, tt_err *e);

tt_status tt_wordlevel_open(tt_wordpiece *w, tt_vocab *vocab, const tt_doc *model, tt_err *e);
tt_status tt_wordlevel_encode(const tt_wordpiece *w, const tt_vocab *vocab, const char *piece,
                              size_t n, tt_ids *out, tt_err *e);

#endif
