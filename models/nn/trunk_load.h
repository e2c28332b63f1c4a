/* trunk_load.h - pieces of binding a checkpoint, for bodies that are not read by
 * tt_trunk_open() but keep their weights in a tt_trunk. */
#ifndef TT_TRUNK_LOAD_H
#define TT_TRUNK_LOAD_H

#include "models/nn/trunk.h"

/* Arithmetic for a weights mode, given how the checkpoint stores its matrices (t->stored). */
tt_status tt_trunk_choose(tt_trunk *t, tt_weights_mode mode, tt_err *e);
/* Sets t->half and t->inv_freq. */
tt_status tt_trunk_rotation(tt_trunk *t, const tt_rotary *r, tt_err *e);
/* A vector [n] to the device, as float32. */
tt_status tt_trunk_vector(tt_trunk *t, float **out, const tt_weights *w, const char *name,
                          int64_t n, tt_err *e);
/* Parts into one matrix, rounded to 8 bits where the mode says so. list is used up. */
tt_status tt_trunk_pack(tt_trunk *t, tt_matrix **out, tt_weight *list, int64_t parts,
                        const float *bias, unsigned flags, tt_compute compute, tt_err *e);
/* Table, final norm and head by names->table, norm and head. Tied weights share one matrix unless
 * rounding makes the two uses differ. */
tt_status tt_trunk_ends(tt_trunk *t, const tt_weights *w, const tt_trunk_names *names, bool tied,
                        tt_err *e);

#endif
