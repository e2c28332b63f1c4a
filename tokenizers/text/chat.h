/* chat.h - what a chat format is made of; for chat.c and chat_formats.c. */
#ifndef TT_TEXT_CHAT_H
#define TT_TEXT_CHAT_H

#include <stdbool.h>

#include "tokenizers/text.h"

/* Around one turn. Control tokens stand in these strings as text and are named in control[]. */
typedef struct {
    const char *open, *close;
} tt_chat_wrap;

struct tt_chat_format {
    const char *name;
    const char *prefix; /* in front of the conversation */
    tt_chat_wrap system, user, assistant;
    tt_chat_wrap first_system;  /* a system turn in front; NULL: as any other */
    const char *after_first;    /* behind its text, unless that is empty */
    const char *default_system; /* text of the turn put in front if none is; or NULL */
    bool trim;                  /* white space around a turn's text is dropped */
    const char *control[6];     /* by id; NULL-terminated */
    const char *stop[4];        /* ids that end an answer; those the tokenizer has */
};

#endif
