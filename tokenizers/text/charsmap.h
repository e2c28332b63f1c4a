/* charsmap.h - SentencePiece's precompiled normalisation rules.
 *
 * The file form: 4 bytes little-endian length of a double-array trie (Darts-clone units), the
 * trie, then zero-terminated replacement strings; a trie value is an offset into those. The map
 * comes from strangers: no step of a walk leaves the arrays. */
#ifndef TT_TEXT_CHARSMAP_H
#define TT_TEXT_CHARSMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

typedef struct {
    uint32_t *unit; /* NULL: an empty map */
    size_t units;
    char *text; /* always ends in a NUL */
    size_t text_bytes;
} tt_charsmap;

tt_status tt_charsmap_open(tt_charsmap *m, const void *data, size_t bytes, tt_err *e);
/* The same from base64. */
tt_status tt_charsmap_open_base64(tt_charsmap *m, const char *text, size_t bytes, tt_err *e);
void tt_charsmap_close(tt_charsmap *m);

/* The shortest or the longest rule that matches at the beginning of p: its replacement and the
 * bytes it covers; NULL when there is none. */
const char *tt_charsmap_find(const tt_charsmap *m, const char *p, size_t n, bool longest,
                             size_t *covered);

#endif
