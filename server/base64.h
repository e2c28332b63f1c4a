/* base64.h - bytes as text and back (RFC 4648, with padding, no line breaks). */
#ifndef TT_BASE64_H
#define TT_BASE64_H

#include <stdbool.h>

#include "kernels/base/buf.h"

void tt_base64_put(tt_buf *out, const void *bytes, size_t n);
/* Appends the bytes that the text stands for. False when it is not base64 (padding may be missing,
 * nothing else may be there); what was appended is then to be thrown away. */
bool tt_base64_take(tt_buf *out, const char *text, size_t n);

#endif
