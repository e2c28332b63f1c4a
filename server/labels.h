/* labels.h - names of what an image model can show: labels.json of its folder, next to the numbers
 * its network knows; or a file that config key labels names.
 *
 *   {"groups": [{"name": "concept", "labels": ["red apple", ...]}, {"name": "style", ...}]}
 *
 * A prompt is one label of one or more groups, separated by commas: "red apple", "red apple,
 * flat". Case, articles in front and the word "style" behind do not count. Read-only once open. */
#ifndef TT_LABELS_H
#define TT_LABELS_H

#include "kernels/base/buf.h"
#include "models/generator.h"

typedef struct tt_labels tt_labels;

/* name: of the file, as tt_beside() reads it. *out NULL when the folder has no such file.
 * TT_EFORMAT when it does not fit the generator. */
tt_status tt_labels_open(tt_labels **out, const char *folder, const char *name,
                         const tt_generator_info *info, tt_err *e);
void tt_labels_close(tt_labels *l); /* NULL is fine */

const char *tt_labels_group(const tt_labels *l, int32_t group);
int32_t tt_labels_count(const tt_labels *l, int32_t group);
const char *tt_labels_name(const tt_labels *l, int32_t group, int32_t label);
/* The label of that name in the group, -1: none. */
int32_t tt_labels_find(const tt_labels *l, int32_t group, const char *name, size_t bytes);

/* What the prompt asks for; an empty one for nothing in particular. l may be NULL: then, and where
 * no label has that name, numbers of labels of the first group. TT_EINVAL naming path and some
 * labels like it. */
tt_status tt_labels_prompt(const tt_labels *l, const tt_generator_info *info, const char *prompt,
                           const char *path, tt_condition *out, tt_err *e);
/* The other way round: "red apple, flat". */
void tt_labels_caption(const tt_labels *l, const tt_generator_info *info, const tt_condition *c,
                       tt_buf *out);

#endif
