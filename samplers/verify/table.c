/* table.c - every verifier network, once. A new one is a file, a line in the list and a test. */
#include <stdlib.h>
#include <string.h>

#include "samplers/verifier.h"
#include "tokenizers/text.h"

#define TT_VERIFIERS(X) X(clip) X(aesthetic) X(image_reward)

#define DECLARE(id) extern const tt_verifier_def tt_verifier_##id;
TT_VERIFIERS(DECLARE)

#define ENTRY(id) &tt_verifier_##id,
static const tt_verifier_def *const table[] = {TT_VERIFIERS(ENTRY) NULL};

const tt_verifier_def *const *tt_verifier_all(void)
{
    return table;
}

const tt_verifier_def *tt_verifier_find(const char *name)
{
    for (const tt_verifier_def *const *v = table; *v; v++)
        for (const char *const *a = (*v)->architectures; *a; a++)
            if (!strcmp(*a, name))
                return *v;
    return NULL;
}

static const tt_verifier_def *in_folder(const char *folder)
{
    tt_config *c;
    if (tt_config_open(&c, folder, NULL))
        return NULL;
    const char *name = tt_config_architecture(c);
    const tt_verifier_def *d = tt_verifier_find(*name ? name : tt_config_text(c, "model_type", ""));
    tt_config_close(c);
    return d;
}

bool tt_verifier_in(const char *folder)
{
    return in_folder(folder) != NULL;
}

tt_status tt_verifier_open(tt_verifier **out, tt_stream *s, const char *folder,
                           tt_weights_mode mode, tt_err *e)
{
    *out = NULL;
    const tt_verifier_def *d = in_folder(folder);
    if (!d)
        return tt_fail(e, TT_EUNSUP, "'%.100s/config.json' names no verifier known", folder);
    tt_status st = d->open(out, s, folder, mode, e);
    tt_verifier *v = *out;
    if (!st)
        v->def = d;
    if (!st && d->reads_prompt)
        st = tt_tok_open(&v->tok, folder, e);
    if (!st)
        return TT_OK;
    tt_verifier_close(v);
    *out = NULL;
    return st;
}

void tt_verifier_close(tt_verifier *v)
{
    if (!v)
        return;
    tt_tok_close(v->tok);
    v->def->close(v);
}

tt_status tt_verifier_prepare(tt_verifier *v, void **out, const char *text, tt_err *e)
{
    *out = NULL;
    return v->def->prepare ? v->def->prepare(v, out, text, e) : TT_OK;
}

tt_status tt_verifier_score(tt_verifier *v, const void *prompt, const tt_exhibit *x, int32_t n,
                            float *score, tt_err *e)
{
    return n ? v->def->score(v, prompt, x, n, score, e) : TT_OK;
}
