/* doc.h - reading a JSON document that comes from strangers, with the place named in every error.
 *
 * A tt_doc is one value together with the way to it: doc -> parent -> ... -> root. Parents must
 * outlive their children; they live on the stack of the function that reads them. Every getter
 * checks the type and says "pre_tokenizer.pretokenizers[1].behavior: ..." when it is wrong. A
 * member that is there twice is refused. */
#ifndef TT_TEXT_DOC_H
#define TT_TEXT_DOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "kernels/base/err.h"

typedef struct tt_doc {
    const cJSON *item; /* NULL: the member is absent (or null) */
    const struct tt_doc *up;
    const char *key; /* as a member of an object; NULL for an array element or the root */
    int index;
} tt_doc;

/* Parses bytes of JSON; the caller frees *root with cJSON_Delete. Refuses ill-formed UTF-8,
 * trailing text and \u0000 (a C string cannot hold it); the message gives line and column. */
tt_status tt_doc_parse(cJSON **root, const char *json, size_t bytes, tt_err *e);

/* "<path>: <text>" as the error. */
tt_status tt_doc_fail(const tt_doc *d, tt_status s, tt_err *e, const char *fmt, ...)
    __attribute__((format(printf, 4, 5), cold));
/* Writes the path of d, "added_tokens[3].content", cut off if longer; returns out. */
char *tt_doc_path(const tt_doc *d, char *out, size_t size);

/* The member called key; out->item is NULL when it is absent or null. d must be an object. */
tt_status tt_doc_find(const tt_doc *d, const char *key, tt_doc *out, tt_err *e);
/* The same, but absence is TT_EFORMAT. */
tt_status tt_doc_need(const tt_doc *d, const char *key, tt_doc *out, tt_err *e);

/* Values. tt_doc_text borrows the document's memory. */
tt_status tt_doc_is_array(const tt_doc *d, tt_err *e);
tt_status tt_doc_is_object(const tt_doc *d, tt_err *e);
tt_status tt_doc_text(const tt_doc *d, const char **text, size_t *bytes, tt_err *e);
tt_status tt_doc_int(const tt_doc *d, int64_t lo, int64_t hi, int64_t *out, tt_err *e);
tt_status tt_doc_number(const tt_doc *d, double *out, tt_err *e);

/* Members with a default; the value is untouched when the member is absent or null. */
tt_status tt_doc_get_bool(const tt_doc *d, const char *key, bool *value, tt_err *e);
tt_status tt_doc_get_int(const tt_doc *d, const char *key, int64_t lo, int64_t hi, int64_t *value,
                         tt_err *e);
tt_status tt_doc_get_text(const tt_doc *d, const char *key, const char **text, size_t *bytes,
                          tt_err *e);
/* The member "type" of a component, which must be there. */
tt_status tt_doc_type(const tt_doc *d, const char **type, tt_err *e);

/* for (tt_doc x = tt_doc_first(&list); x.item; x = tt_doc_next(&x)) */
tt_doc tt_doc_first(const tt_doc *list);
tt_doc tt_doc_next(const tt_doc *d);

#endif
