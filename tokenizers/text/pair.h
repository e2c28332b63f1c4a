/* pair.h - tokenizers of before tokenizer.json: vocab.json and merges.txt side by side. */
#ifndef TT_TOK_PAIR_H
#define TT_TOK_PAIR_H

#include "kernels/base/buf.h"
#include "kernels/base/err.h"

/* Appends the tokenizer.json that says what the two files mean together: GPT-2's byte-level BPE,
 * or CLIP's when the vocabulary marks the ends of words ("</w>") - lower case, blanks collapsed, an
 * end token behind, a start token before. TT_EFORMAT naming file and line. */
tt_status tt_tok_join_pair(tt_buf *out, const char *vocab, size_t vocab_bytes, const char *merges,
                           size_t merges_bytes, tt_err *e);

#endif
