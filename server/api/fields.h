/* fields.h - every member a request body may have, once.
 *
 * The table decides what is read, tolerated or refused and which types and ranges are good, for
 * all endpoints; the API document is written from it. After tt_fields_check() the getters below
 * cannot fail. The extension object `tutti` has its own table here plus every sampling parameter
 * of samplers/params.h. */
#ifndef TT_FIELDS_H
#define TT_FIELDS_H

#include "samplers/params.h"
#include "server/json_read.h"

enum { /* endpoints */
    TT_ON_COMPLETIONS = 1 << 0,
    TT_ON_CHAT = 1 << 1,
    TT_ON_INFILL = 1 << 2,
    TT_ON_FIM = 1 << 3,
    TT_ON_LLAMA = 1 << 4, /* /infill in the shape of llama-server */
    TT_ON_TOKENIZE = 1 << 5,
    TT_ON_DETOKENIZE = 1 << 6,
    TT_ON_GENERATE = (1 << 5) - 1,
    TT_ON_LIKELIHOOD = 1 << 7,
    TT_ON_EMBEDDINGS = 1 << 8,
    TT_ON_RERANK = 1 << 9,
    TT_ON_SCORE = 1 << 10,
    TT_ON_ENCODE = TT_ON_EMBEDDINGS | TT_ON_RERANK | TT_ON_SCORE,
    TT_ON_READ = TT_ON_LIKELIHOOD | TT_ON_ENCODE, /* measure texts, generate nothing */
    TT_ON_IMAGES = 1 << 11,
    TT_ON_EDITS = 1 << 12,
    TT_ON_VARIATIONS = 1 << 13,
    TT_ON_IMAGE_TOKENS = 1 << 14, /* images to tokens */
    TT_ON_TOKEN_IMAGES = 1 << 15, /* and back */
    TT_ON_MAKE = TT_ON_IMAGES | TT_ON_EDITS | TT_ON_VARIATIONS,
    TT_ON_PICTURES = TT_ON_MAKE | TT_ON_IMAGE_TOKENS | TT_ON_TOKEN_IMAGES,
};

typedef enum {
    TT_FIELD_TEXT,
    TT_FIELD_INT,
    TT_FIELD_NUMBER,
    TT_FIELD_BOOL,
    TT_FIELD_ARRAY,
    TT_FIELD_OBJECT,
    TT_FIELD_TEXTS,  /* a string or an array of strings */
    TT_FIELD_PROMPT, /* a string, strings, token ids, or lists of token ids */
    TT_FIELD_ANY,
} tt_field_type;

typedef enum {
    TT_FIELD_READ,
    TT_FIELD_TOLERATED, /* sent by common clients, has no effect here; refused when strict */
    TT_FIELD_NEUTRAL,   /* accepted only with the value that changes nothing */
} tt_field_use;

typedef struct {
    const char *name;
    unsigned on; /* TT_ON_* */
    tt_field_type type;
    tt_field_use use;
    double min, max;     /* numbers; strings and arrays: most elements in max, 0: no bound */
    const char *neutral; /* TT_FIELD_NEUTRAL: JSON values that change nothing, '|' between */
    const char *help;
} tt_field;

/* Ended by a NULL name. */
const tt_field *tt_fields(void);
/* The members of the extension object that are not sampling parameters; ended by a NULL name. */
const tt_field *tt_extension_fields(void);

/* Another name at top level for a member of the extension object. */
typedef struct {
    const char *alias, *member;
    const char *from; /* whose name it is */
} tt_alias;
const tt_alias *tt_aliases(void);

/* Checks names, types and ranges of the whole body and of its `tutti` object. endpoint: one
 * TT_ON_ bit. Codes: unknown_parameter, invalid_value, unsupported_parameter. */
tt_status tt_fields_check(const cJSON *body, unsigned endpoint, bool strict, tt_err *e);

/* Where the member of the extension object was given: in `tutti`, or at top level under its own
 * name or an alias. NULL when nowhere; *path then untouched. Given twice with different values is
 * an error. */
tt_status tt_extension_find(const cJSON *body, const char *member, const cJSON **node,
                            tt_json_path *path, tt_err *e);

/* Sets every sampling parameter the body gives. Errors name the field as the client wrote it. */
tt_status tt_params_read(const cJSON *body, tt_params *p, tt_err *e);

/* Type and range of one value. */
tt_status tt_field_check(const cJSON *node, const tt_field *f, const char *path, tt_err *e);

/* Getters for checked bodies. */
const char *tt_field_text(const cJSON *body, const char *name, const char *fallback);
int64_t tt_field_int(const cJSON *body, const char *name, int64_t fallback);
bool tt_field_bool(const cJSON *body, const char *name, bool fallback);

#endif
