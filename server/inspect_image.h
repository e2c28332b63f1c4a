/* inspect_image.h - the part of `tutti inspect` about image models and verifiers. */
#ifndef TT_INSPECT_IMAGE_H
#define TT_INSPECT_IMAGE_H

#include <stdbool.h>

#include "models/weights.h"

/* What the folder of an image model holds and needs; on stdout. */
tt_status tt_inspect_image(const char *folder, bool tensors, tt_err *e);
/* The same of a verifier. */
tt_status tt_inspect_verifier(const char *folder, tt_err *e);
/* Families, samplers, searches and verifiers of images in this build. */
void tt_list_images(void);

/* cmd_inspect.c */
void tt_print_tensors(const tt_weights *w);

#endif
