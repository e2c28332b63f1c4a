/* tok.h - the parts of a tt_tok; for the files of this folder only. */
#ifndef TT_TEXT_TOK_H
#define TT_TEXT_TOK_H

#include "tokenizers/text.h"
#include "tokenizers/text/added.h"
#include "tokenizers/text/decode.h"
#include "tokenizers/text/model.h"
#include "tokenizers/text/normal.h"
#include "tokenizers/text/post.h"
#include "tokenizers/text/split.h"
#include "tokenizers/text/spm.h"

struct tt_tok {
    tt_added added;
    tt_normal normal;
    tt_split split;
    tt_text_model model;
    tt_post post;
    tt_decoder decoder;
    tt_spm spm;          /* used when the file was a SentencePiece model */
    char *chat_template; /* NULL when there is none */
    int32_t bos, eos, mask;
    char kind[40];
};

/* tt_tok_encode with some added tokens left out: those whose id is in ban count as text. */
tt_status tt_tok_encode_without(const tt_tok *t, const char *text, size_t bytes, unsigned flags,
                                const int32_t *ban, size_t bans, tt_ids *out, tt_err *e);

/* spm_open.c: a tokenizer from a SentencePiece file. t is empty except for zeroes. */
tt_status tt_tok_read_spm(tt_tok *t, const void *data, size_t bytes, const tt_doc *config,
                          tt_err *e);

#endif
