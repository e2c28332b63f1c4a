/* folder.c - see folder.h. */
#include "models/folder.h"

tt_status tt_folder_weights(tt_weights **out, const char *folder, bool random, tt_err *e)
{
    return random ? tt_weights_open_random(out, e) : tt_weights_open(out, folder, e);
}

tt_status tt_folder_opened(tt_status st, tt_weights **weights, tt_config **config)
{
    if (!st)
        return st;
    tt_weights_close(*weights);
    tt_config_close(*config);
    *weights = NULL;
    *config = NULL;
    return st;
}
