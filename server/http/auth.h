/* auth.h - API keys: given on the command line, or one per line in a file that can be read again
 * while serving. Thread-safe. */
#ifndef TT_AUTH_H
#define TT_AUTH_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/err.h"

typedef struct tt_auth tt_auth;

/* keys: NULL-terminated list, copied; may be NULL. file may be NULL. Fails with TT_EIO (file),
 * TT_EINVAL (an empty key, or a file without keys). */
tt_status tt_auth_open(tt_auth **out, const char *const *keys, const char *file, tt_err *e);
void tt_auth_close(tt_auth *a); /* NULL is fine */

/* Reads the file again; on failure the keys stay as they were. */
tt_status tt_auth_reload(tt_auth *a, tt_err *e);
bool tt_auth_needed(tt_auth *a);
/* header: the value of Authorization, or NULL. Takes the same time whichever key is wrong
 * wherever. True when no keys are needed. *who tells keys apart: the same number for the same key,
 * also after it was read again; 0 when none is needed. */
bool tt_auth_allows(tt_auth *a, const char *header, uint64_t *who);

#endif
