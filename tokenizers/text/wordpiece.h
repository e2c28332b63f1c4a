/* wordpiece.h - WordPiece: the longest token that fits, again and again (BERT, arXiv 1810.04805);
 * and WordLevel: the whole piece or nothing. */
#ifndef TT_TEXT_WORDPIECE_H
#define TT_TEXT_WORDPIECE_H

#include <stdint.h>

#include "tokenizers/text.h"
#include "tokenizers/text/doc.h"
#include "tokenizers/text/trie.h"
#include "tokenizers/text/vocab.h"

typedef struct {
    int32_t unk;      /* -1: not in the vocabulary */
    tt_trie trie;     /* text -> id; empty for WordLevel */
    int32_t inside;   /* node of "##", where a token inside a word begins; -1: there is none */
    size_t max_chars; /* a longer piece is one unk */
} tt_wordpiece;

tt_status tt_wordpiece_open(tt_wordpiece *w, tt_vocab *vocab, const tt_doc *model, tt_err *e);
void tt_wordpiece_close(tt_wordpiece *w);
tt_status tt_wordpiece_encode(const tt_wordpiece *w, const char *piece, size_t n, tt_ids *out,
                              tt_err *e);

tt_status tt_wordlevel_open(tt_wordpiece *w, tt_vocab *vocab, const tt_doc *model, tt_err *e);
tt_status tt_wordlevel_encode(const tt_wordpiece *w, const tt_vocab *vocab, const char *piece,
                              size_t n, tt_ids *out, tt_err *e);

#endif
