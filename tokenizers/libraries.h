/* libraries.h - versions of the libraries that text tokenizers stand on, for `tutti doctor`. */
#ifndef TT_TOK_LIBRARIES_H
#define TT_TOK_LIBRARIES_H

#include "kernels/base/buf.h"

/* Appends "PCRE2 10.42 (JIT), utf8proc 2.8.0". */
void tt_tok_libraries(tt_buf *out);

#endif
