/* unigram.h - the unigram language model tokenizer (Kudo, arXiv 1804.10959): of all ways to spell
 * a piece with tokens, the one whose scores add up to most. */
#ifndef TT_TEXT_UNIGRAM_H
#define TT_TEXT_UNIGRAM_H

#include <stdbool.h>
#include <stdint.h>

#include "tokenizers/text.h"
#include "tokenizers/text/doc.h"
#include "tokenizers/text/junction.h"
#include "tokenizers/text/scratch.h"
#include "tokenizers/text/trie.h"
#include "tokenizers/text/vocab.h"

typedef struct {
    tt_trie trie;     /* text -> id */
    double *score;    /* by id */
    double unk_score; /* of one character that no token covers */
    int32_t unk;      /* or -1 */
    bool byte_fallback;
    bool single; /* sums are kept in float, as SentencePiece does */
    int32_t fallback[256];
    tt_trie user;            /* SentencePiece: user-defined symbols */
    tt_junctions *junctions; /* SentencePiece BPE */
} tt_unigram;

tt_status tt_unigram_open(tt_unigram *u, tt_vocab *vocab, const tt_doc *model, tt_err *e);
void tt_unigram_close(tt_unigram *u);
tt_status tt_unigram_encode(const tt_unigram *u, const tt_vocab *vocab, tt_scratch *s,
                            const char *piece, size_t n, tt_ids *out, tt_err *e);

/* Appends ids for text that no token covers: bytes if it can be spelled so, else one unk. */
tt_status tt_unigram_unknown(const tt_unigram *u, const tt_vocab *vocab, const char *p, size_t n,
                             tt_ids *out, tt_err *e);

/* Fills fallback from the vocabulary's <0x00> ... <0xFF>. */
void tt_unigram_index_bytes(tt_unigram *u, const tt_vocab *vocab);

#endif
