/* post.h - the post-processor of a tokenizer.json: ids put around one text on request. */
#ifndef TT_TEXT_POST_H
#define TT_TEXT_POST_H

#include "tokenizers/text.h"
#include "tokenizers/text/doc.h"
#include "tokenizers/text/vocab.h"

typedef struct {
    tt_ids before, after;
} tt_post;

/* d->item NULL means none. Every id must be in vocab. */
tt_status tt_post_open(tt_post *p, const tt_vocab *vocab, const tt_doc *d, tt_err *e);
void tt_post_close(tt_post *p);

#endif
