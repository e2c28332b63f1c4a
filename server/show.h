/* show.h - a canvas that fills in on a terminal, out of order, as its frames arrive. */
#ifndef TT_SHOW_H
#define TT_SHOW_H

#include <stdio.h>

#include "server/json_read.h"

typedef struct tt_show tt_show;

/* Takes over the terminal behind `to` until tt_show_close(). text: shown around the canvas, must
 * outlive this. with_holes: the canvas fills its holes (holes.h); else it comes after it. Fails
 * with TT_ENOMEM. */
tt_status tt_show_open(tt_show **out, FILE *to, const char *text, bool with_holes, tt_err *e);
/* Gives the terminal back as it was; NULL is fine. */
void tt_show_close(tt_show *s);

/* Queues one frame of the REST interface's delta streams, {"step", "of", "canvas", "events"}; other
 * objects, and NULL, are ignored. */
tt_status tt_show_add(tt_show *s, const cJSON *frame, tt_err *e);
/* Draws the next queued frame when its time has come. Returns the milliseconds until the next one
 * is due, -1 when none is queued. */
int64_t tt_show_tick(tt_show *s, int64_t now_ms);

#endif
