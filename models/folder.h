/* folder.h - opening the folder of a model, an image generator or an image codec: what all do
 * alike. Between the two functions stands what differs, which family it is and how it reads. */
#ifndef TT_FOLDER_H
#define TT_FOLDER_H

#include "models/config.h"
#include "models/weights.h"

/* The folder's tensors; random: such as are asked for, from nowhere (tt_weights_open_random). */
tt_status tt_folder_weights(tt_weights **out, const char *folder, bool random, tt_err *e);

/* The end of an opening that came to `st`, which it returns: then both stay open, or are closed and
 * NULL. Either may be NULL already. */
tt_status tt_folder_opened(tt_status st, tt_weights **weights, tt_config **config);

#endif
