/* split_steps.h - the kinds of steps, shared by split.c and split_open.c. */
#ifndef TT_TEXT_SPLIT_STEPS_H
#define TT_TEXT_SPLIT_STEPS_H

#include "tokenizers/text/split.h"

tt_split_fn tt_split_by_pattern, tt_split_by_chars, tt_split_by_length, tt_split_byte_level,
    tt_split_spell, tt_split_metaspace;

#endif
