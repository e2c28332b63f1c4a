/* libraries.c - see tokenizers/libraries.h. */
#include "tokenizers/libraries.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>
#include <utf8proc.h>

void tt_tok_libraries(tt_buf *out)
{
    char pcre2[64] = "?";
    uint32_t jit = 0;
    if (pcre2_config(PCRE2_CONFIG_VERSION, NULL) <= (int)sizeof pcre2)
        pcre2_config(PCRE2_CONFIG_VERSION, pcre2);
    pcre2_config(PCRE2_CONFIG_JIT, &jit);
    tt_buf_printf(out, "PCRE2 %.*s (%s JIT), utf8proc %s", (int)strcspn(pcre2, " "), pcre2,
                  jit ? "with" : "no", utf8proc_version());
}
