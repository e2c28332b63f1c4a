/* bpe_merge.h - the table of merges, shared by bpe.c and bpe_open.c. */
#ifndef TT_TEXT_BPE_MERGE_H
#define TT_TEXT_BPE_MERGE_H

#include "tokenizers/text/bpe.h"

static inline size_t tt_bpe_hash(int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    key *= 0x9E3779B97F4A7C15u; /* 2^64 / golden ratio: spreads neighbouring ids */
    return (size_t)(key ^ key >> 32);
}

/* The merge of two ids, or NULL. */
const tt_merge *tt_bpe_merge(const tt_bpe *b, int32_t left, int32_t right);

#endif
