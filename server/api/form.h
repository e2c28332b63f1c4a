/* form.h - one body, whether it came as JSON or as a form.
 *
 * Fields of a form become the members that JSON would have: `tutti[steps]` a member of `tutti`,
 * `name[]` elements of an array, texts numbers and truth values where the tables of fields.h want
 * those. Files stay where they are, by name. */
#ifndef TT_API_FORM_H
#define TT_API_FORM_H

#include "server/api/fields.h"
#include "server/api/work.h"
#include "server/multipart.h"

typedef struct {
    cJSON *tree; /* checked: tt_fields_check() */
    tt_multipart form; /* files are among its parts; no parts when the body was JSON */
} tt_form;

/* body must outlive the form. endpoint: a TT_ON_ bit. */
tt_status tt_form_read(tt_form *out, const tt_body *body, unsigned endpoint, bool strict,
                       tt_err *e);
void tt_form_free(tt_form *f);

/* The i-th file called `name` or `name[]`, NULL: there are no more. */
const tt_part_of_form *tt_form_file(const tt_form *f, const char *name, int i);

#endif
