/* generate_image.h - `tutti generate` with an image model: the answer becomes PNG files. */
#ifndef TT_GENERATE_IMAGE_H
#define TT_GENERATE_IMAGE_H

#include "server/generate_body.h"
#include "server/local.h"

/* Asks for the body's images, writes them to a->output (a number goes in front of the ending when
 * there are several; "-": stdout) and prints the names of the files. */
tt_status tt_generate_image(tt_local *l, const tt_generate_args *a, const tt_buf *body, tt_err *e);

/* A file's bytes in base64, for bodies; "-" is stdin. */
tt_status tt_file_base64(const char *path, tt_buf *out, tt_err *e);

#endif
