/* utf8.h - validation and safe cut points. UTF-8 as RFC 3629: no surrogates, no overlong forms,
 * nothing above U+10FFFF. */
#ifndef TT_UTF8_H
#define TT_UTF8_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/base/buf.h"

/* Length of the well-formed character at p (1-4), or 0 if the n bytes there do not start one. */
size_t tt_utf8_length(const char *p, size_t n);
/* Decodes the character at p into *cp and returns its length, or 0 (*cp = U+FFFD). */
size_t tt_utf8_decode(const char *p, size_t n, uint32_t *cp);
/* Writes cp (a scalar value) to out[4] and returns its length. */
size_t tt_utf8_encode(uint32_t cp, char out[4]);

/* Offset of the first ill-formed byte, or n when all of it is well-formed. */
size_t tt_utf8_valid(const char *text, size_t n);

/* Length of the maximal ill-formed part at p, as the WHATWG decoder replaces it by one U+FFFD;
 * at least 1. p must not start a well-formed character. */
size_t tt_utf8_bad_length(const char *p, size_t n);

/* How many of the n bytes may be sent now: all but a final part that is an unfinished, so far
 * well-formed character (at most 3 bytes). */
size_t tt_utf8_complete(const char *text, size_t n);

/* Appends text with every maximal ill-formed part replaced by one U+FFFD. */
void tt_utf8_repair(tt_buf *out, const char *text, size_t n);

#endif
