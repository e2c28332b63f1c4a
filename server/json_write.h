/* json_write.h - JSON as text, appended to a buffer; no tree.
 *
 * The writer puts in commas and escapes; the caller opens and closes in the right order. Strings
 * may hold any bytes: ill-formed UTF-8 becomes U+FFFD, so the output is always valid JSON on one
 * line. Memory failures show in the buffer's own `failed`. */
#ifndef TT_JSON_WRITE_H
#define TT_JSON_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/buf.h"

typedef struct {
    tt_buf *out;
    bool comma; /* the next value or key needs one in front */
} tt_json;

/* A writer that appends to b: tt_json w = {.out = &b}; */

void tt_json_open(tt_json *w, char bracket);  /* '{' or '[' */
void tt_json_close(tt_json *w, char bracket); /* '}' or ']' */
void tt_json_key(tt_json *w, const char *key);

void tt_json_put_text(tt_json *w, const char *text); /* NULL becomes null */
void tt_json_put_bytes(tt_json *w, const char *text, size_t bytes);
void tt_json_put_int(tt_json *w, int64_t v);
void tt_json_put_float(tt_json *w, double v); /* nine digits; null when not finite */
void tt_json_put_bool(tt_json *w, bool v);
void tt_json_put_null(tt_json *w);
void tt_json_put_raw(tt_json *w, const char *json); /* already JSON, one value */

/* A key and its value. */
void tt_json_text_member(tt_json *w, const char *key, const char *text);
void tt_json_int_member(tt_json *w, const char *key, int64_t v);
void tt_json_float_member(tt_json *w, const char *key, double v);
void tt_json_bool_member(tt_json *w, const char *key, bool v);
void tt_json_null_member(tt_json *w, const char *key);
void tt_json_open_member(tt_json *w, const char *key, char bracket);

#endif
