/* chat.h - messages to ids, for chat and for tokenize. */
#ifndef TT_API_CHAT_H
#define TT_API_CHAT_H

#include "server/engine.h"
#include "server/json_read.h"

/* Appends the ids of a `messages` member (may be NULL: an error). *e must not be NULL. */
tt_status tt_chat_read(const tt_served *model, const cJSON *messages, tt_ids *out, tt_err *e);

/* Appends the text of an object's `content`: a string, or text parts. path: of the object. */
tt_status tt_chat_content(const cJSON *object, const char *path, tt_buf *out, tt_err *e);

#endif
