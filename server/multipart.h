/* multipart.h - bodies of type multipart/form-data (RFC 7578), read strictly: a part without a
 * name, a line that ends in other than CRLF, a missing closing boundary are errors. Nothing is
 * copied: parts lead into the body. */
#ifndef TT_MULTIPART_H
#define TT_MULTIPART_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/base/err.h"

enum { TT_MAX_PARTS = 64 };

typedef struct {
    char name[128];
    bool file; /* it has a file name, whatever that is */
    const char *data;
    size_t bytes;
} tt_part_of_form;

typedef struct {
    tt_part_of_form part[TT_MAX_PARTS];
    int parts;
} tt_multipart;

/* True when a Content-Type names this kind of body. */
bool tt_is_multipart(const char *content_type);
/* TT_EINVAL with code invalid_form and what is wrong. */
tt_status tt_multipart_read(tt_multipart *out, const char *content_type, const char *body,
                            size_t bytes, tt_err *e);

#endif
