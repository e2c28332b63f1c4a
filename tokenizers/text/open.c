/* open.c - a tokenizer from its folder, and the questions one may ask it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizers/text/pair.h"
#include "tokenizers/text/tok.h"

enum { MAX_FILE = 512 << 20 }; /* the largest known tokenizer.json has 33 MB */

/* --- files --- */

/* The whole file; *there tells whether it exists. */
static tt_status read_file(const char *folder, const char *name, tt_buf *out, bool *there,
                           tt_err *e)
{
    tt_buf path = {0};
    tt_buf_printf(&path, "%s/%s", folder, name);
    FILE *f = fopen(tt_buf_text(&path), "rb");
    int why = errno;
    *there = f != NULL;
    tt_status st = TT_OK;
    if (!f && why != ENOENT)
        st = tt_fail(e, TT_EIO, "%s: %s", tt_buf_text(&path), strerror(why));
    for (size_t n = 1; f && n > 0 && !st;) {
        if (out->size > MAX_FILE)
            st = tt_fail(e, TT_EFORMAT, "%s: larger than %d bytes", tt_buf_text(&path), MAX_FILE);
        else if (!tt_buf_reserve(out, 1 << 16))
            st = tt_fail(e, TT_ENOMEM, "%s: no memory to read it", tt_buf_text(&path));
        if (st)
            break;
        n = fread(out->data + out->size, 1, out->capacity - out->size - 1, f);
        out->size += n;
        out->data[out->size] = '\0';
    }
    if (f && !st && ferror(f))
        st = tt_fail(e, TT_EIO, "%s: cannot be read", tt_buf_text(&path));
    if (f)
        fclose(f);
    tt_buf_free(&path);
    return st;
}

/* --- tokenizer_config.json --- */

static tt_status keep_template(tt_tok *t, const char *text, size_t bytes, tt_err *e)
{
    free(t->chat_template);
    t->chat_template = malloc(bytes + 1);
    if (!t->chat_template)
        return tt_fail(e, TT_ENOMEM, "no memory for the chat template");
    memcpy(t->chat_template, text, bytes);
    t->chat_template[bytes] = '\0';
    return TT_OK;
}

/* A list of {name, template}: the one called "default", else the first. */
static tt_status choose_template(tt_tok *t, const tt_doc *list, tt_err *e)
{
    const char *chosen = NULL;
    size_t chosen_bytes = 0;
    for (tt_doc d = tt_doc_first(list); d.item; d = tt_doc_next(&d)) {
        tt_doc name, text;
        const char *n, *s;
        size_t bytes, unused;
        tt_status st = tt_doc_need(&d, "name", &name, e);
        if (st || (st = tt_doc_need(&d, "template", &text, e)) ||
            (st = tt_doc_text(&name, &n, &unused, e)) || (st = tt_doc_text(&text, &s, &bytes, e)))
            return st;
        if (!chosen || !strcmp(n, "default")) {
            chosen = s;
            chosen_bytes = bytes;
        }
    }
    return chosen ? keep_template(t, chosen, chosen_bytes, e) : TT_OK;
}

static tt_status read_template(tt_tok *t, const tt_doc *config, tt_err *e)
{
    tt_doc d;
    tt_status st = tt_doc_find(config, "chat_template", &d, e);
    if (st || !d.item)
        return st;
    if (cJSON_IsArray(d.item))
        return choose_template(t, &d, e);
    const char *text;
    size_t bytes;
    st = tt_doc_text(&d, &text, &bytes, e);
    return st ? st : keep_template(t, text, bytes, e);
}

/* "bos_token": "<s>" or {"content": "<s>"}; *id stays when the member is absent. */
static tt_status read_role(const tt_tok *t, const tt_doc *config, const char *key, int32_t *id,
                           tt_err *e)
{
    tt_doc d, content;
    const char *text;
    size_t bytes;
    tt_status st = tt_doc_find(config, key, &d, e);
    if (st || !d.item)
        return st;
    if (cJSON_IsObject(d.item)) {
        st = tt_doc_need(&d, "content", &content, e);
        if (!st)
            st = tt_doc_text(&content, &text, &bytes, e);
    } else {
        st = tt_doc_text(&d, &text, &bytes, e);
    }
    if (!st)
        *id = tt_tok_id(t, text);
    return st;
}

static tt_status read_config(tt_tok *t, const tt_doc *config, tt_err *e)
{
    if (!config->item)
        return TT_OK;
    tt_doc added;
    tt_status st = tt_doc_find(config, "added_tokens_decoder", &added, e);
    if (st || (st = tt_added_read_config(&t->added, &t->model.vocab, &added, e)) ||
        (st = read_role(t, config, "bos_token", &t->bos, e)) ||
        (st = read_role(t, config, "eos_token", &t->eos, e)) ||
        (st = read_role(t, config, "mask_token", &t->mask, e)))
        return st;
    return read_template(t, config, e);
}

/* --- tokenizer.json --- */

static tt_status read_tokenizer(tt_tok *t, const tt_doc *root, tt_err *e)
{
    tt_doc normal, split, model, added, post, decoder;
    tt_status st = tt_doc_find(root, "normalizer", &normal, e);
    if (st || (st = tt_doc_find(root, "pre_tokenizer", &split, e)) ||
        (st = tt_doc_need(root, "model", &model, e)) ||
        (st = tt_doc_find(root, "added_tokens", &added, e)) ||
        (st = tt_doc_find(root, "post_processor", &post, e)) ||
        (st = tt_doc_find(root, "decoder", &decoder, e)) ||
        (st = tt_normal_open(&t->normal, &normal, e)) || (st = tt_split_open(&t->split, &split, e)))
        return st;
    bool byte_level = t->normal.byte_level || t->split.byte_level;
    if (t->normal.byte_level && t->split.byte_level)
        return tt_doc_fail(&split, TT_EUNSUP, e, "a second ByteLevel");
    if ((st = tt_text_model_open(&t->model, &model, byte_level, e)) ||
        (st = tt_added_read(&t->added, &t->model.vocab, &added, e)) ||
        (st = tt_post_open(&t->post, &t->model.vocab, &post, e)))
        return st;
    snprintf(t->kind, sizeof t->kind, "%s%s", byte_level ? "byte-level " : "", t->model.kind->name);
    return tt_decoder_open(&t->decoder, &decoder, e);
}

static tt_status read_json(tt_tok *t, const char *json, size_t bytes, tt_err *e)
{
    cJSON *tree;
    tt_status st = tt_doc_parse(&tree, json, bytes, e);
    if (!st)
        st = read_tokenizer(t, &(tt_doc){.item = tree}, e);
    cJSON_Delete(tree);
    return st ? tt_context(e, st, "tokenizer.json") : TT_OK;
}

static tt_status finish(tt_tok *t, tt_err *e)
{
    tt_status st = tt_added_finish(&t->added, &t->normal, e);
    if (!st && t->model.kind->finish)
        st = t->model.kind->finish(&t->model, e);
    return st ? st : tt_decoder_index(&t->decoder, &t->model.vocab, e);
}

/* Does data begin as JSON does? A SentencePiece file begins with the byte 0x0A, which is
 * a newline, too; then comes the length of the first piece. */
static bool looks_like_json(const char *data, size_t bytes)
{
    size_t i = bytes >= 3 && !memcmp(data, "\xEF\xBB\xBF", 3) ? 3 : 0;
    while (i < bytes && (data[i] == ' ' || data[i] == '\t' || data[i] == '\r' || data[i] == '\n'))
        i++;
    return i == bytes || data[i] == '{' || data[i] == '[';
}

typedef struct {
    const char *data, *config; /* config may be NULL */
    size_t bytes, config_bytes;
    bool json; /* data is a tokenizer.json, not a SentencePiece file */
} source;

static tt_status open_all(tt_tok *t, const source *s, tt_err *e)
{
    cJSON *tree = NULL;
    tt_status st = tt_added_open(&t->added, e);
    if (!st && s->config) {
        st = tt_doc_parse(&tree, s->config, s->config_bytes, e);
        if (st)
            tt_context(e, st, "tokenizer_config.json");
    }
    tt_doc root = {.item = tree};
    if (!st && s->json) {
        st = read_json(t, s->data, s->bytes, e);
    } else if (!st) {
        st = tt_tok_read_spm(t, s->data, s->bytes, &root, e);
        snprintf(t->kind, sizeof t->kind, "%s", t->model.kind ? t->model.kind->name : "");
    }
    if (!st) {
        st = read_config(t, &root, e);
        if (st)
            tt_context(e, st, "tokenizer_config.json");
    }
    cJSON_Delete(tree);
    return st ? st : finish(t, e);
}

static tt_status open_source(tt_tok **out, const source *s, tt_err *e)
{
    *out = NULL;
    tt_tok *t = calloc(1, sizeof *t);
    if (!t)
        return tt_fail(e, TT_ENOMEM, "no memory for a tokenizer");
    t->bos = t->eos = t->mask = -1;
    tt_status st = open_all(t, s, e);
    if (st) {
        tt_tok_close(t);
        return st;
    }
    *out = t;
    return TT_OK;
}

tt_status tt_tok_open_text(tt_tok **out, const char *json, size_t json_bytes, const char *config,
                           size_t config_bytes, tt_err *e)
{
    json = json ? json : ""; /* with no bytes */
    source s = {json, config, json_bytes, config_bytes, looks_like_json(json, json_bytes)};
    return open_source(out, &s, e);
}

/* vocab.json and merges.txt, read as one tokenizer.json. */
static tt_status read_pair(const char *folder, tt_buf *out, bool *there, tt_err *e)
{
    tt_buf vocab = {0}, merges = {0};
    bool both = false;
    tt_status st = read_file(folder, "vocab.json", &vocab, &both, e);
    if (!st && both)
        st = read_file(folder, "merges.txt", &merges, &both, e);
    if (!st && both)
        st = tt_tok_join_pair(out, tt_buf_text(&vocab), vocab.size, tt_buf_text(&merges),
                              merges.size, e);
    *there = both;
    tt_buf_free(&vocab);
    tt_buf_free(&merges);
    return st;
}

tt_status tt_tok_open(tt_tok **out, const char *folder, tt_err *e)
{
    *out = NULL;
    tt_buf data = {0}, config = {0}, chat = {0};
    bool json, there, has_config = false, has_chat = false;
    tt_status st = read_file(folder, "tokenizer.json", &data, &json, e);
    there = json;
    if (!st && !there)
        st = read_file(folder, "tokenizer.model", &data, &there, e);
    if (!st && !there)
        st = read_pair(folder, &data, &json, e);
    there |= json;
    if (!st && !there)
        st = tt_fail(e, TT_EIO, "none of tokenizer.json, tokenizer.model, and vocab.json with "
                     "merges.txt is there");
    if (!st)
        st = read_file(folder, "tokenizer_config.json", &config, &has_config, e);
    if (!st)
        st = read_file(folder, "chat_template.jinja", &chat, &has_chat, e);
    if (!st) {
        source s = {tt_buf_text(&data), has_config ? tt_buf_text(&config) : NULL, data.size,
                    config.size, json};
        st = open_source(out, &s, e);
    }
    if (!st && has_chat)
        st = keep_template(*out, tt_buf_text(&chat), chat.size, e);
    tt_buf_free(&data);
    tt_buf_free(&config);
    tt_buf_free(&chat);
    if (st) {
        tt_tok_close(*out);
        *out = NULL;
        return tt_context(e, st, "tokenizer in '%s'", folder);
    }
    return TT_OK;
}

void tt_tok_close(tt_tok *t)
{
    if (!t)
        return;
    tt_added_close(&t->added);
    tt_normal_close(&t->normal);
    tt_split_close(&t->split);
    tt_text_model_close(&t->model);
    tt_post_close(&t->post);
    tt_decoder_close(&t->decoder);
    tt_spm_close(&t->spm);
    free(t->chat_template);
    free(t);
}

/* --- questions --- */

const char *tt_tok_piece(const tt_tok *t, int32_t id, size_t *bytes)
{
    const tt_vocab *v = &t->model.vocab;
    *bytes = 0;
    if (!tt_vocab_has(v, id))
        return NULL;
    *bytes = v->token[id].piece_bytes;
    return tt_buf_text(&v->piece) + v->token[id].piece_at;
}

int32_t tt_tok_vocab(const tt_tok *t)
{
    return t->model.vocab.n;
}

int32_t tt_tok_id(const tt_tok *t, const char *content)
{
    size_t n = strlen(content);
    int32_t id = tt_added_id(&t->added, content, n);
    return id >= 0 ? id : tt_vocab_find(&t->model.vocab, content, n);
}

bool tt_tok_is_special(const tt_tok *t, int32_t id)
{
    return tt_vocab_has(&t->model.vocab, id) && t->model.vocab.token[id].flags & TT_TOKEN_SPECIAL;
}

int32_t tt_tok_bos(const tt_tok *t)
{
    return t->bos;
}
int32_t tt_tok_eos(const tt_tok *t)
{
    return t->eos;
}
int32_t tt_tok_mask(const tt_tok *t)
{
    static const char *const usual[] = {"<|mask|>", "<|mdm_mask|>", "<|MASK|>", "[MASK]",
                                        "<mask>"};
    int32_t id = t->mask;
    for (size_t i = 0; i < sizeof usual / sizeof *usual && id < 0; i++)
        id = tt_added_id(&t->added, usual[i], strlen(usual[i]));
    return id;
}
bool tt_tok_concatenates(const tt_tok *t)
{
    const tt_decoder *d = &t->decoder;
    return !d->by_first && !d->by_last && !d->strip.start && !d->strip.stop;
}

const char *tt_tok_kind(const tt_tok *t)
{
    return t->kind;
}
