/* images.h - requests about images: made, edited, varied, turned into tokens and back. Work of the
 * kind work.h describes.
 *
 *   generations, variations, edits   a job of n images; for what begins with an image, a job that
 *                                    turns it into tokens comes first
 *   tokenize, detokenize             a job per image */
#ifndef TT_API_IMAGES_H
#define TT_API_IMAGES_H

#include "server/api/work.h"

extern const tt_image_endpoint tt_image_generations, tt_image_edits, tt_image_variations,
    tt_image_tokenize, tt_image_detokenize;

tt_status tt_imaging_read(tt_work **out, tt_api *api, const tt_image_endpoint *endpoint,
                          const tt_body *body, tt_err *e);

#endif
