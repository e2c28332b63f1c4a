/* spm.h - SentencePiece models (Kudo and Richardson, arXiv 1808.06226) read from their own file.
 *
 * spm_file.c reads the protocol buffer, spm.c normalises and merges as the released C++ library
 * does: one text is one piece, blanks become U+2581. Unigram models share unigram.c. */
#ifndef TT_TEXT_SPM_H
#define TT_TEXT_SPM_H

#include <stdbool.h>

#include "tokenizers/text/charsmap.h"
#include "tokenizers/text/scratch.h"
#include "tokenizers/text/trie.h"

typedef struct {
    bool active; /* this tokenizer came from a SentencePiece file */
    tt_charsmap map;
    const tt_trie *user; /* the model's user-defined symbols: kept as they are, never split */
    bool dummy_prefix, trim, escape, as_suffix;
} tt_spm;

/* Appends the normalised text. */
tt_status tt_spm_normalize(const tt_spm *s, const char *text, size_t n, tt_buf *out, tt_err *e);
void tt_spm_close(tt_spm *s);

/* Bytes of the longest user-defined symbol at p, or 0. */
size_t tt_spm_user(const tt_trie *user, const char *p, size_t n);

/* --- the file --- */

enum { TT_SPM_NORMAL = 1, TT_SPM_UNKNOWN, TT_SPM_CONTROL, TT_SPM_USER, TT_SPM_UNUSED, TT_SPM_BYTE };
enum { TT_SPM_UNIGRAM = 1, TT_SPM_BPE = 2 };

typedef struct {
    const char *text; /* into the file */
    size_t bytes;
    float score;
    int type;
} tt_spm_piece;

typedef struct {
    tt_spm_piece *piece;
    size_t pieces, room;
    int model_type;
    bool byte_fallback, as_suffix, dummy_prefix, trim, escape;
    int64_t bos, eos;
    const char *charsmap, *unk_surface;
    size_t charsmap_bytes, unk_surface_bytes;
} tt_spm_file;

/* data must outlive f. Fails with TT_EFORMAT, saying where. */
tt_status tt_spm_read(tt_spm_file *f, const void *data, size_t bytes, tt_err *e);
void tt_spm_file_close(tt_spm_file *f);

#endif
