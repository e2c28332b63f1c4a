/* buf.h - a growing byte buffer: text being built, bodies being read.
 *
 * Always NUL-terminated after the last byte once something was added, so that data is also a C
 * string when it holds text. The first failed growth sets `failed` and every later call is a
 * no-op: build the whole thing, then check once. */
#ifndef TT_BUF_H
#define TT_BUF_H

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    char *data; /* NULL while empty */
    size_t size, capacity;
    bool failed; /* memory ran out; the content is incomplete */
} tt_buf;

void tt_buf_free(tt_buf *b);
void tt_buf_clear(tt_buf *b); /* keeps the memory */
void tt_buf_add(tt_buf *b, const void *bytes, size_t n);
void tt_buf_puts(tt_buf *b, const char *text);
void tt_buf_putc(tt_buf *b, char c);
void tt_buf_printf(tt_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool tt_buf_reserve(tt_buf *b, size_t more); /* room for more bytes beyond size */

/* The content as a C string ("" when empty). */
static inline const char *tt_buf_text(const tt_buf *b) { return b->data ? b->data : ""; }

#endif
