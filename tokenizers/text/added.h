/* added.h - tokens that are found in the text before everything else.
 *
 * Two passes, as the reference has them: tokens marked "normalized": false are looked for in the
 * raw text, the others in the normalised text between them, in their own normalised form. The
 * leftmost match wins, the longest at equal start. */
#ifndef TT_TEXT_ADDED_H
#define TT_TEXT_ADDED_H

#include <stdbool.h>
#include <stdint.h>

#include "tokenizers/text/doc.h"
#include "tokenizers/text/normal.h"
#include "tokenizers/text/trie.h"
#include "tokenizers/text/vocab.h"

typedef struct {
    char *text;
    size_t bytes;
    int32_t id;
    bool special, normalized, single_word;
    bool lstrip, rstrip; /* takes the white space beside it along */
} tt_added_token;

typedef struct {
    tt_added_token *token;
    size_t count, room;
    tt_map *by_text;
    tt_trie raw, normal; /* values are indices into token */
} tt_added;

tt_status tt_added_open(tt_added *a, tt_err *e);
void tt_added_close(tt_added *a);

/* list: the member "added_tokens"; item NULL means none. Enters the tokens into vocab. */
tt_status tt_added_read(tt_added *a, tt_vocab *vocab, const tt_doc *list, tt_err *e);
/* The member "added_tokens_decoder" of tokenizer_config.json: an object by id. Tokens whose text
 * is there already stay as they are. */
tt_status tt_added_read_config(tt_added *a, tt_vocab *vocab, const tt_doc *object, tt_err *e);
/* One token, copied; nothing happens when its text was added before. Fails with TT_EFORMAT when
 * its id belongs to another text. */
tt_status tt_added_add(tt_added *a, tt_vocab *vocab, const tt_added_token *token, tt_err *e);
/* To be called once after the last token: makes them findable. */
tt_status tt_added_finish(tt_added *a, const tt_normal *normal, tt_err *e);

/* Id of the added token with this text, or -1. */
int32_t tt_added_id(const tt_added *a, const char *text, size_t bytes);

/* Walks over the tokens in one text. Special ones are skipped unless asked for; so are those whose
 * id is in ban. Set text, bytes and the choice; the rest begins as zero. */
typedef struct {
    const char *text;
    size_t bytes;
    bool special;
    const int32_t *ban;
    size_t bans;
    const tt_added_token *found;
    size_t start, end; /* what it covers, white space included */
    size_t from;       /* where to look next */
} tt_added_scan;

/* The next token, or false. */
bool tt_added_next(const tt_added *a, const tt_trie *trie, tt_added_scan *s);

#endif
