/* mask.h - the mask token of a model whose config.json names none, as LLaDA-MoE's and LLaDA2's do
 * not. */
#ifndef TT_MASK_H
#define TT_MASK_H

#include "models/model.h"
#include "tokenizers/text.h"

/* Fills in info->mask_id when a masked model has none: from generation_config.json's
 * mask_token_id, else from the tokenizer (NULL: there is none). TT_EFORMAT when neither knows one,
 * or when it lies outside the vocabulary. */
tt_status tt_mask_find(tt_model_info *info, const char *folder, const tt_tok *tok, tt_err *e);

#endif
