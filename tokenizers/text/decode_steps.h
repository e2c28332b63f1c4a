/* decode_steps.h - the kinds of steps, shared by decode.c and decode_open.c. */
#ifndef TT_TEXT_DECODE_STEPS_H
#define TT_TEXT_DECODE_STEPS_H

#include "tokenizers/text/decode.h"

tt_decode_fn tt_decode_blank, tt_decode_byte_level, tt_decode_byte_fallback, tt_decode_metaspace,
    tt_decode_bpe_suffix, tt_decode_strip, tt_decode_replace, tt_decode_wordpiece, tt_decode_spm;

#endif
