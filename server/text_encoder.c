/* text_encoder.c - see text_encoder.h. */
#include "server/text_encoder.h"

#include <stdlib.h>
#include <string.h>

#include "models/folder.h"

static tt_status encode(const tt_text_encoder *t, float **row, const int32_t *id, int32_t n,
                        tt_err *e)
{
    *row = malloc((size_t)n * (size_t)t->width * sizeof **row);
    tt_status s = *row ? tt_t5_encode(t->t5, *row, id, &n, NULL, 1, e)
                       : tt_fail(e, TT_ENOMEM, "no memory for a prompt of %d tokens", n);
    if (s) {
        free(*row);
        *row = NULL;
    }
    return s;
}

static tt_status encode_nothing(tt_text_encoder *t, tt_err *e)
{
    tt_prompt p = {0};
    tt_status s = tt_prompt_read(&p, t, "", e);
    if (!s)
        s = encode(t, &t->none, p.id, p.ids, e);
    t->none_rows = p.ids;
    tt_prompt_free(&p);
    return s;
}

static tt_status open_parts(tt_text_encoder *t, tt_stream *s, const char *folder, int64_t width,
                            tt_weights_mode mode, bool random, tt_err *e)
{
    tt_status st = tt_tok_open(&t->tok, folder, e);
    if (!st)
        st = tt_config_open(&t->config, folder, e);
    if (!st)
        st = tt_folder_weights(&t->weights, folder, random, e);
    if (!st)
        st = tt_t5_open(&t->t5, s, t->weights, t->config, mode, e);
    if (st)
        return st;
    tt_weights_rest(t->weights);
    const tt_t5_info *i = tt_t5_about(t->t5);
    t->width = i->width;
    t->longest = t->longest < i->longest ? t->longest : i->longest;
    if (i->width != width || tt_tok_vocab(t->tok) > i->vocab)
        return tt_fail(e, TT_EFORMAT, "rows of %lld numbers where %lld are wanted, %d ids in a "
                       "vocabulary of %d", (long long)i->width, (long long)width,
                       tt_tok_vocab(t->tok), i->vocab);
    return encode_nothing(t, e);
}

tt_status tt_text_encoder_open(tt_text_encoder **out, tt_stream *s, const char *folder,
                               int32_t longest, int64_t width, tt_weights_mode mode, bool random,
                               tt_err *e)
{
    *out = NULL;
    tt_text_encoder *t = calloc(1, sizeof *t);
    if (!t)
        return tt_fail(e, TT_ENOMEM, "no memory for a text encoder");
    t->longest = longest;
    tt_status st = open_parts(t, s, folder, width, mode, random, e);
    if (st) {
        tt_text_encoder_close(t);
        return tt_context(e, st, "text encoder '%.100s'", folder);
    }
    *out = t;
    return TT_OK;
}

void tt_text_encoder_close(tt_text_encoder *t)
{
    if (!t)
        return;
    tt_t5_close(t->t5);
    tt_weights_close(t->weights);
    tt_config_close(t->config);
    tt_tok_close(t->tok);
    free(t->none);
    free(t);
}

/* --- prompts --- */

tt_status tt_prompt_read(tt_prompt *p, const tt_text_encoder *t, const char *text, tt_err *e)
{
    tt_ids ids = {0};
    *p = (tt_prompt){.by = t};
    tt_status s = tt_tok_encode(t->tok, text, strlen(text), TT_TOK_ADD_SPECIAL, &ids, e);
    if (!s && (ids.count < 1 || ids.count > (size_t)t->longest))
        s = tt_fail_param(e, "prompt", "invalid_value",
                          "'prompt' has %zu tokens; this model reads 1 to %d", ids.count,
                          t->longest);
    if (s) {
        tt_ids_free(&ids);
        return s;
    }
    p->id = ids.id;
    p->ids = (int32_t)ids.count;
    return TT_OK;
}

tt_status tt_prompt_copy(tt_prompt *to, const tt_prompt *from)
{
    *to = (tt_prompt){.by = from->by, .ids = from->ids};
    to->id = malloc((size_t)from->ids * sizeof *to->id + 1);
    if (!to->id)
        return TT_ENOMEM;
    memcpy(to->id, from->id, (size_t)from->ids * sizeof *to->id);
    return TT_OK;
}

tt_status tt_prompt_encode(tt_prompt *p, tt_err *e)
{
    return p->row ? TT_OK : encode(p->by, &p->row, p->id, p->ids, e);
}

void tt_prompt_free(tt_prompt *p)
{
    free(p->id);
    free(p->row);
    *p = (tt_prompt){.ids = 0};
}
