/* model.h - the model of a tokenizer: from one piece of text to ids. */
#ifndef TT_TEXT_MODEL_H
#define TT_TEXT_MODEL_H

#include "tokenizers/text/bpe.h"
#include "tokenizers/text/unigram.h"
#include "tokenizers/text/wordpiece.h"

typedef struct tt_text_model_kind tt_text_model_kind;

typedef struct {
    const tt_text_model_kind *kind;
    tt_vocab vocab;
    union {
        tt_bpe bpe;
        tt_wordpiece wordpiece; /* and WordLevel */
        tt_unigram unigram;
    };
} tt_text_model;

struct tt_text_model_kind {
    const char *type;                                                /* in tokenizer.json */
    const char *name;                                                /* for people */
    tt_status (*open)(tt_text_model *m, const tt_doc *d, tt_err *e); /* NULL: not from JSON */
    tt_status (*finish)(tt_text_model *m, tt_err *e); /* once all ids are known; may be NULL */
    tt_status (*encode)(const tt_text_model *m, tt_scratch *s, const char *piece, size_t bytes,
                        tt_ids *out, tt_err *e);
    void (*close)(tt_text_model *m);
};

/* d: the member "model". byte_level: pieces are raw bytes. */
tt_status tt_text_model_open(tt_text_model *m, const tt_doc *d, bool byte_level, tt_err *e);
void tt_text_model_close(tt_text_model *m);

/* The kinds that a SentencePiece file asks for. */
extern const tt_text_model_kind tt_text_model_spm_unigram, tt_text_model_spm_bpe;

/* The member "vocab" as an object from text to id. */
tt_status tt_text_model_read_vocab(tt_vocab *v, const tt_doc *model, tt_err *e);

#endif
