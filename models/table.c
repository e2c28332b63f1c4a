/* table.c - every model family, once. A new one is a file, a line in the list below and a test. */
#include <string.h>

#include "models/model.h"

#define TT_MODELS(X) \
    X(llada)         \
    X(dream)         \
    X(arlm)          \
    X(llada_moe)     \
    X(llada2_moe)    \
    X(mdlm)          \
    X(qwen3)         \
    X(llama)         \
    X(raven)         \
    X(insertion)     \
    X(sdar)

#define DECLARE(id) extern const tt_model_def tt_model_##id;
TT_MODELS(DECLARE)

#define ENTRY(id) &tt_model_##id,
static const tt_model_def *const table[] = {TT_MODELS(ENTRY) NULL};

const tt_model_def *const *tt_model_all(void) { return table; }

const tt_model_def *tt_model_find(const char *architecture)
{
    for (const tt_model_def *const *m = table; *m; m++)
        for (const char *const *name = (*m)->architectures; *name; name++)
            if (!strcmp(*name, architecture))
                return *m;
    return NULL;
}
