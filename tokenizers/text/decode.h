/* decode.h - from token ids back to text.
 *
 * A decoder is a list of steps that turn one token's content into the bytes it contributes; some
 * ask whether the token is the first or the last of the text. The bytes are joined, and what is
 * ill-formed in the whole becomes U+FFFD. After joining, a fixed number of blanks may be cut off
 * at both ends. What a token gives in the middle of a text is worked out once, when the tokenizer
 * is opened (the "piece" in the vocabulary). */
#ifndef TT_TEXT_DECODE_H
#define TT_TEXT_DECODE_H

#include <stdbool.h>

#include "tokenizers/text.h"
#include "tokenizers/text/doc.h"
#include "tokenizers/text/pattern.h"
#include "tokenizers/text/scratch.h"
#include "tokenizers/text/vocab.h"

typedef struct tt_decode_step tt_decode_step;

typedef struct {
    const tt_decode_step *step;
    tt_scratch *scratch;
    uint8_t flags; /* of the token */
    bool first, last;
    bool done; /* set by a step: no further step changes this token */
    tt_err *e;
} tt_decode_place;

typedef tt_status tt_decode_fn(tt_decode_place *at, const char *text, size_t n, tt_buf *out);

struct tt_decode_step {
    tt_decode_fn *run;
    tt_pattern pattern; /* Replace */
    char *text;         /* Replace: content; WordPiece: prefix; BPEDecoder: suffix; SPM: unk */
    size_t bytes;
    char sign[4]; /* Metaspace, Strip */
    size_t sign_bytes;
    unsigned start, stop; /* Strip: how many signs at most */
    bool cleanup;         /* WordPiece */
    bool drop_first;      /* Metaspace: no sign stays in the first token */
    bool drop_all;        /* SentencePiece: every blank in front of the text goes */
};

typedef struct {
    tt_decode_step step[TT_MAX_STEPS];
    int steps;
    bool by_first, by_last; /* some step asks */
    tt_decode_step strip;   /* after joining; start and stop are 0 when there is none */
} tt_decoder;

/* d->item NULL: contents are joined with blanks, as the reference does. */
tt_status tt_decoder_open(tt_decoder *dec, const tt_doc *d, tt_err *e);
/* SentencePiece's rules. dummy: a blank was put in front of the text; trim: blanks at its ends were
 * cut; unk: what unknown text is shown as. */
tt_status tt_decoder_open_spm(tt_decoder *dec, bool dummy, bool trim, const char *unk,
                              size_t unk_bytes, tt_err *e);
void tt_decoder_close(tt_decoder *dec);

/* The byte that a token like "<0x41>" stands for, or -1. */
int tt_decode_byte_code(const char *text, size_t n);

/* Fills the pieces of the vocabulary, whose ids must be complete. */
tt_status tt_decoder_index(const tt_decoder *dec, tt_vocab *vocab, tt_err *e);
/* Appends what the token contributes at this place. */
tt_status tt_decoder_token(const tt_decoder *dec, const tt_vocab *vocab, tt_scratch *s, int32_t id,
                           bool first, bool last, tt_buf *out, tt_err *e);

#endif
