/* json_read.h - JSON from strangers: one careful parse, then typed reading where every error
 * names its field.
 *
 * The tree is cJSON's; what that library lets through is refused before or right after it runs:
 * ill-formed UTF-8, U+0000 (which would cut strings short), control characters, numbers that are
 * not JSON or do not fit a double, deep nesting, too many values, duplicate keys, trailing text.
 * Reading functions take the node and its path ("messages[2].content"); the path becomes
 * tt_err.param. */
#ifndef TT_JSON_READ_H
#define TT_JSON_READ_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

enum { TT_JSON_MAX_DEPTH = 64, TT_JSON_MAX_VALUES = 500000 };

/* Largest integer that a double, and so a JSON number, holds exactly. */
#define TT_JSON_MAX_INT ((int64_t)1 << 53)

/* On success the caller frees *out with cJSON_Delete(). TT_EINVAL with code invalid_json and line
 * and column in the sentence; TT_ENOMEM. text needs no NUL at its end. */
tt_status tt_json_parse(cJSON **out, const char *text, size_t bytes, tt_err *e);

/* --- paths --- */

typedef struct {
    char text[96];
} tt_json_path;

/* "parent.key", or "key" when parent is "". */
tt_json_path tt_json_member(const char *parent, const char *key);
/* "parent[index]". */
tt_json_path tt_json_element(const char *parent, int index);

/* --- reading --- */

/* The member of that exact name (case counts); NULL when it is absent or null, or when object is
 * NULL. */
const cJSON *tt_json_get(const cJSON *object, const char *key);

/* Each fails with TT_EINVAL, code invalid_value, when the node has another type or is out of
 * range. node must not be NULL. The string lives as long as the tree. */
tt_status tt_json_text(const cJSON *node, const char *path, const char **out, tt_err *e);
tt_status tt_json_int(const cJSON *node, const char *path, int64_t min, int64_t max, int64_t *out,
                      tt_err *e);
tt_status tt_json_number(const cJSON *node, const char *path, double min, double max, double *out,
                         tt_err *e);
tt_status tt_json_bool(const cJSON *node, const char *path, bool *out, tt_err *e);
tt_status tt_json_is_object(const cJSON *node, const char *path, tt_err *e);
tt_status tt_json_is_array(const cJSON *node, const char *path, tt_err *e);

/* "a string", "an array", ... for error texts. */
const char *tt_json_kind(const cJSON *node);

#endif
