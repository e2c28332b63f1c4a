/* constrain.h - texts that must have a form: regular expressions and JSON schemas of requests. */
#ifndef TT_API_CONSTRAIN_H
#define TT_API_CONSTRAIN_H

#include "server/api/gen_parts.h"

/* Appends a regular expression that the JSON texts of a schema match, as samplers/constraint.h
 * reads it. Every such text is valid; of the valid ones those are left out that have other
 * properties or another order, or other blanks than one or none behind , and :.
 *
 * What is understood: type (also a list of them) object, array, string, number, integer, boolean
 * and null; properties, required, additionalProperties (a boolean); items, minItems, maxItems;
 * minLength, maxLength, format (date, time, date-time, uuid, ipv4); minimum 0; enum, const, anyOf,
 * oneOf as anyOf, allOf of one; $ref into the schema, not recursive. {} and true are any value, up
 * to 3 levels deep. Titles and the like are skipped; everything else is TT_EINVAL, code
 * unsupported_value, naming it. path: of the schema. */
tt_status tt_schema_regex(const cJSON *schema, const char *path, tt_buf *out, tt_err *e);
/* The same for any JSON object, as response_format json_object asks for. */
void tt_schema_any_object(tt_buf *out);

/* What the text of an answer must match: `response_format`, `tutti.regex`, `tutti.json_schema` or
 * another name of them. Sets g->form and the field's name, the first time it is called. */
tt_status tt_gen_read_format(tt_gen *g, const cJSON *body, tt_err *e);
/* The same for members `regex` and `json_schema` of a hole. *out is NULL when there is nothing,
 * else the caller's; *at names the field (kept for the request's life). */
tt_status tt_hole_read_format(tt_gen *g, const cJSON *hole, const char *path, tt_grammar **out,
                              const char **at, tt_err *e);
/* Puts the grammar on columns; the canvas takes a reference. ends: the text may end before they
 * do. Refuses what no text fits. */
tt_status tt_canvas_constrain(tt_canvas *c, tt_grammar *g, int32_t begin, int32_t end, bool ends,
                              const char *path, tt_err *e);
/* TT_EINVAL: no text of `least` to `most` tokens matches. */
tt_status tt_constrain_check(const tt_grammar *g, int64_t least, int64_t most, const char *path,
                             tt_err *e);

#endif
