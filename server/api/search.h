/* search.h - what requests say under `tutti.search`, and what answers say of it. */
#ifndef TT_API_SEARCH_H
#define TT_API_SEARCH_H

#include "server/api/api.h"
#include "server/api/fields.h"
#include "server/json_write.h"

/* The members of the object; ended by a NULL name. For the API document, too. */
const tt_field *tt_search_fields(void);

/* Names, types and ranges of the members. on: TT_ON_IMAGES or TT_ON_COMPLETIONS. */
tt_status tt_search_check(const cJSON *node, unsigned on, tt_err *e);
tt_status tt_search_read_mode(const cJSON *node, tt_mix_rule *out, tt_err *e);

/* Reads the object for a request that wants n results (n_given: it said so). *out is set as a
 * whole; the prompt is left to the caller. list: room for the counts of a schedule, to live as long
 * as *out. Errors name the member ("tutti.search.beam_width"). */
tt_status tt_search_read(const tt_api *api, const cJSON *node, int32_t n, bool n_given,
                         tt_picture_search_spec *out, int32_t list[TT_MAX_SEARCH_STEPS], tt_err *e);

/* {"algorithm", "verifiers", "forwards", ..., "finish"}: under the key "search". */
void tt_search_write(const tt_picture_search_spec *spec, const tt_search_report *r, tt_json *w);
/* "score" and "scores" of the i-th result. */
void tt_search_write_result(const tt_picture_search_spec *spec, const tt_search_report *r, size_t i,
                            tt_json *w);
/* "step", "tokens" and "candidates" of the i-th stage. */
void tt_search_write_stage(const tt_search_report *r, size_t i, tt_json *w);

#endif
