/* text.h - text to token ids and back.
 *
 * A tokenizer is opened from a Hugging Face folder (tokenizer.json or what came before it, and
 * tokenizer_config.json) and is
 * read-only afterwards: any number of threads may encode and decode with it at once.
 *
 * Text is bytes. Encoding replaces every maximal ill-formed UTF-8 part by U+FFFD first (the
 * WHATWG rule); the server refuses such text earlier. Special tokens written inside user text
 * are ordinary text unless TT_TOK_PARSE_SPECIAL asks otherwise, so a user cannot forge control
 * tokens. */
#ifndef TT_TEXT_H
#define TT_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/buf.h"
#include "kernels/base/err.h"

typedef struct tt_tok tt_tok;

/* A growing list of token ids. */
typedef struct {
    int32_t *id; /* NULL while empty */
    size_t count, capacity;
} tt_ids;

void tt_ids_free(tt_ids *ids);
tt_status tt_ids_add(tt_ids *ids, const int32_t *id, size_t n, tt_err *e);

enum {
    TT_TOK_PARSE_SPECIAL = 1 << 0, /* special tokens written in the text become their ids */
    TT_TOK_ADD_SPECIAL = 1 << 1,   /* apply the post-processor (BOS, [CLS] ... [SEP]) */
};

/* folder: holds tokenizer.json, or else tokenizer.model (SentencePiece), or else vocab.json with
 * merges.txt (GPT-2's and CLIP's byte-level BPE); tokenizer_config.json and
 * chat_template.jinja (chat template, bos/eos) are read when there. The settings "truncation" and
 * "padding" are ignored: the length of a request is the server's business. Fails with TT_EIO,
 * TT_EFORMAT (which member is wrong, with its JSON path), TT_EUNSUP (a model, normaliser,
 * pre-tokeniser or decoder type this build does not know: named). */
tt_status tt_tok_open(tt_tok **out, const char *folder, tt_err *e);
/* The same from memory: json is the content of tokenizer.json; config (may be NULL) that of
 * tokenizer_config.json. Content that does not begin as JSON is taken for a SentencePiece model. */
tt_status tt_tok_open_text(tt_tok **out, const char *json, size_t json_bytes, const char *config,
                           size_t config_bytes, tt_err *e);
void tt_tok_close(tt_tok *t); /* NULL is fine */

/* Appends the ids of text to out. */
tt_status tt_tok_encode(const tt_tok *t, const char *text, size_t bytes, unsigned flags,
                        tt_ids *out, tt_err *e);

/* Appends the text of ids. Unfinished or ill-formed bytes become U+FFFD at the end.
 * skip_special: special tokens contribute nothing (else their literal text). An id outside the
 * vocabulary is TT_EINVAL. */
tt_status tt_tok_decode(const tt_tok *t, const int32_t *id, size_t n, bool skip_special,
                        tt_buf *out, tt_err *e);

/* The bytes one token contributes in the middle of a text (not necessarily whole characters);
 * NULL for an id outside the vocabulary. For logprobs and the canvas view. */
const char *tt_tok_piece(const tt_tok *t, int32_t id, size_t *bytes);

/* True when a text is its tokens' pieces one after the other, also at its ends. */
bool tt_tok_concatenates(const tt_tok *t);
int32_t tt_tok_vocab(const tt_tok *t);                      /* highest id + 1 */
int32_t tt_tok_id(const tt_tok *t, const char *content);    /* of a whole token's text, or -1 */
bool tt_tok_is_special(const tt_tok *t, int32_t id);
int32_t tt_tok_bos(const tt_tok *t); /* from tokenizer_config.json; -1 when there is none */
int32_t tt_tok_eos(const tt_tok *t);
/* tokenizer_config.json's mask_token, else the added token that is called as masks of released
 * tokenizers are ("<|mask|>", "<|mdm_mask|>", "<|MASK|>", "[MASK]", "<mask>"); -1 when there is
 * none. */
int32_t tt_tok_mask(const tt_tok *t);
const char *tt_tok_kind(const tt_tok *t); /* "byte-level BPE", "WordPiece", ... for inspect */

/* Streaming decode: ids in, text out, never cutting a character. Plain data; zero is the start
 * state (skip_special is the only member a caller sets). Concatenated output equals
 * tt_tok_decode of all ids, also for decoders that treat the first or the last piece differently
 * (leading blank, "##" joins). */
typedef struct {
    bool skip_special;
    bool started;     /* something was decoded already */
    bool has_last;    /* last is held back, because its text depends on what follows */
    uint8_t held;     /* bytes of an unfinished character in hold */
    char hold[4];
    int32_t last;
    uint16_t cut;     /* signs cut off at the beginning of the text; UINT16_MAX: done cutting */
    uint16_t blanks;  /* signs held back, because they may be cut off at the end */
} tt_tok_stream;

/* Appends what may be sent after this id. */
tt_status tt_tok_stream_add(const tt_tok *t, tt_tok_stream *s, int32_t id, tt_buf *out, tt_err *e);
/* Appends what is left, an unfinished character as U+FFFD. */
void tt_tok_stream_end(const tt_tok *t, tt_tok_stream *s, tt_buf *out);

/* --- chat (tokenizers/text/chat.c) --- */

typedef struct {
    const char *role; /* system, developer (= system), user, assistant */
    const char *text;
    size_t bytes;
} tt_chat_turn;

/* A chat format known natively; Jinja is never interpreted. */
typedef struct tt_chat_format tt_chat_format;

/* The format of this tokenizer: recognised by tokenizer_config.json's chat_template (marker
 * tokens and structure), or by name when name is not NULL ("chatml", "qwen2", "qwen2.5", "dream",
 * "llada", "llada2", "llama3", "llama3.1"; TT_EINVAL for another). NULL in *out without an error
 * when the folder has no template at all; TT_EUNSUP naming what was found when it has one that is
 * none of the known, or when the tokenizer lacks one of the format's control tokens. */
tt_status tt_chat_find(const tt_chat_format **out, const tt_tok *t, const char *name, tt_err *e);
const char *tt_chat_name(const tt_chat_format *f);
/* Every known name, NULL-terminated, for --help and error texts. */
const char *const *tt_chat_names(void);

/* Appends the ids of the conversation and the opening of the assistant's turn. Control tokens are
 * put in by id, the turns' text is encoded without special parsing. When the last turn is the
 * assistant's and continue_last is set, its text is left open (prefill) and no new turn begins.
 * TT_EINVAL names the turn ("messages[2].role"). stop_ids (tt_chat_stops) end an answer. */
tt_status tt_chat_encode(const tt_chat_format *f, const tt_tok *t, const tt_chat_turn *turn,
                         size_t turns, bool continue_last, tt_ids *out, tt_err *e);
/* Ids that end an assistant turn in this format; returns how many were written (at most cap). */
size_t tt_chat_stops(const tt_chat_format *f, const tt_tok *t, int32_t *id, size_t cap);

#endif
