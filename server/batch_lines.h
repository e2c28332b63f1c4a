/* batch_lines.h - the two file formats of `tutti batch`, OpenAI's batch files: a request a line
 * in, an answer a line out.
 *
 *   {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {...}}
 *   {"id": "batch_req_1", "custom_id": "a", "response": {"status_code": 200, "request_id": ...,
 *    "body": {...}}, "error": null}
 */
#ifndef TT_BATCH_LINES_H
#define TT_BATCH_LINES_H

#include <stdio.h>

#include "kernels/base/map.h"
#include "server/api/api.h"
#include "server/json_read.h"

enum { TT_BATCH_LINE_MAX = 8 << 20 }; /* bytes */

/* A request line, read. Zero is empty; tt_batch_line_free() after use. */
typedef struct {
    int64_t number;            /* of the line, from 1 */
    char *custom_id;           /* NULL: the line has none that can be read */
    char *body;                /* JSON text */
    const tt_route *route;     /* that answers it */
} tt_batch_line;

void tt_batch_line_free(tt_batch_line *l);

/* Reads one line of text. On failure the custom id is still there if it could be read. TT_EINVAL
 * with a code: invalid_json, missing_required_parameter, invalid_value, invalid_url. */
tt_status tt_batch_line_read(tt_batch_line *out, int64_t number, const char *text, size_t bytes,
                             tt_err *e);

/* The answer line of a request that was answered, with whatever status... */
void tt_batch_write_reply(tt_buf *out, const tt_batch_line *l, const tt_reply *r);
/* ... and of a line that is no request. */
void tt_batch_write_error(tt_buf *out, const tt_batch_line *l, const tt_err *e);

/* For --resume: puts the custom ids of all good answers of an earlier output into done, and moves
 * *end behind the last complete line. Fails with TT_ENOMEM, TT_EIO. */
tt_status tt_batch_read_done(FILE *f, tt_map *done, long *end, int64_t *answers, tt_err *e);

#endif
