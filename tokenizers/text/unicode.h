/* unicode.h - what the pipelines ask about characters, and the normal forms. Unicode 15
 * (utf8proc). White space is the White_Space property, not a category. */
#ifndef TT_TEXT_UNICODE_H
#define TT_TEXT_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/buf.h"
#include "kernels/base/err.h"

bool tt_uni_space(uint32_t cp);
bool tt_uni_punctuation(uint32_t cp); /* P*, and every ASCII sign, "$+<=>^`|~" too */
bool tt_uni_numeric(uint32_t cp);     /* N* */
bool tt_uni_mark(uint32_t cp);        /* M* */
bool tt_uni_nonspacing(uint32_t cp);  /* Mn */
bool tt_uni_control(uint32_t cp);     /* C* that text does not need: not tab, newline, return */
bool tt_uni_word(uint32_t cp);        /* \w: letters, marks, decimal digits, connectors */
bool tt_uni_cjk(uint32_t cp);         /* the ideograph blocks that BERT sets apart */

/* Appends the lower case of cp, character by character: no final sigma. */
void tt_uni_lower(tt_buf *out, uint32_t cp);

/* How many bytes from p on are ASCII. */
size_t tt_uni_ascii(const char *p, size_t n);

/* Bytes of the extended grapheme cluster at p; at least 1 when n is not 0. */
size_t tt_uni_grapheme(const char *p, size_t n);

typedef enum { TT_NFC, TT_NFD, TT_NFKC, TT_NFKD } tt_uni_form;

/* True when text is certainly in the form already (ASCII; for NFC most European text). */
bool tt_uni_is_normal(const char *text, size_t n, tt_uni_form form);
/* Appends text (well-formed UTF-8) in the form. Linear in n, also for long runs of marks. */
tt_status tt_uni_normalize(tt_buf *out, const char *text, size_t n, tt_uni_form form, tt_err *e);

#endif
