/* holes.h - a text with holes as people write it: "Dear [[4]], thank you" has a hole of four
 * tokens between two literal parts, [[2-8]] one of two to eight, [[Sir|Madam]] a choice of texts.
 */
#ifndef TT_HOLES_H
#define TT_HOLES_H

#include <stdbool.h>
#include <stddef.h>

enum { TT_HOLE_MAX = 9999 };

typedef struct {
    const char *text; /* literal: the bytes there; choices: what stands between the brackets */
    size_t bytes;
    /* Of a hole whose length is a number: 0 <= min <= tokens, 1 <= tokens <= TT_HOLE_MAX. */
    int min, tokens;
    bool choices;    /* text holds them, '|' between */
} tt_hole_part;

/* The next part of the text at *at, which moves behind it. False at the end. */
bool tt_holes_next(const char **at, tt_hole_part *out);

#endif
