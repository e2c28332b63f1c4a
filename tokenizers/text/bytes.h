/* bytes.h - GPT-2's printable alphabet for bytes.
 *
 * "Byte-level" vocabularies spell every byte as one printable character: 33-126, 161-172 and
 * 174-255 as themselves, the other 68 as U+0100, U+0101, ... in order. Text of n bytes becomes n
 * characters of at most two bytes each. */
#ifndef TT_TEXT_BYTES_H
#define TT_TEXT_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/buf.h"

/* The character for a byte, and back (-1 for a character outside the alphabet). */
uint32_t tt_bytes_char(unsigned char byte);
int tt_bytes_value(uint32_t cp);

/* Appends text spelled in the alphabet. */
void tt_bytes_spell(tt_buf *out, const char *text, size_t n);
/* The bytes that text spells, to out (room for n); how many, or SIZE_MAX when some character is not
 * of the alphabet. */
size_t tt_bytes_read_to(char *out, const char *text, size_t n);
/* Appends the bytes that text spells; false, with nothing appended, when some character is not of
 * the alphabet. */
bool tt_bytes_read(tt_buf *out, const char *text, size_t n);

#endif
