/* Any bytes as a form: its parts and the members they become, up to where pictures are decoded.
 * What is a form is one however often it is read. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "server/api/form.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tt_form f, again;
    tt_err e = {0};
    tt_body body = {.type = "multipart/form-data; boundary=B", .data = (const char *)data,
                    .bytes = size};
    tt_status s = tt_form_read(&f, &body, TT_ON_EDITS, false, &e);
    if (s == TT_EINVAL && (!*e.text || !*e.code))
        __builtin_trap();
    if (!s && (tt_form_read(&again, &body, TT_ON_EDITS, false, NULL) ||
               !cJSON_Compare(f.tree, again.tree, 1)))
        __builtin_trap();
    const char *end = body.data + size;
    for (int i = 0; !s && i < f.form.parts; i++) {
        const tt_part_of_form *p = &f.form.part[i];
        if (!*p->name || p->data < body.data || p->data + p->bytes > end)
            __builtin_trap();
    }
    if (!s)
        tt_form_free(&again);
    tt_form_free(&f);
    return 0;
}
