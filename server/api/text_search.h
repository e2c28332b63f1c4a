/* text_search.h - `tutti.search` of requests for texts: best of n by verifiers. */
#ifndef TT_API_TEXT_SEARCH_H
#define TT_API_TEXT_SEARCH_H

#include "server/api/gen_parts.h"

/* Reads the object, if there is one, into g->search; sets g->made. What texts cannot be searched by
 * is refused with the reason. */
tt_status tt_text_search_read(tt_gen *g, const cJSON *body, tt_err *e);
void tt_text_search_free(tt_text_search *s); /* NULL is fine */

/* When all answers are there: scores them. True when that is done or the request has failed; else
 * g->wake is called when there is more to do. */
bool tt_text_search_advance(tt_gen *g);

double tt_text_search_score(const tt_gen *g, const tt_choice *c);
/* "score" and "scores" of a choice; and the object "search" of the answer. */
void tt_text_search_write_choice(const tt_gen *g, const tt_choice *c, tt_json *w);
void tt_text_search_write(const tt_gen *g, tt_json *w);

#endif
