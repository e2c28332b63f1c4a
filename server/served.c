/* served.c - see served.h: what is behind a served entry, and how it is read. */
#include "server/served.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "kernels/base/log.h"
#include "server/beside.h"
#include "server/defaults.h"
#include "server/mask.h"

typedef struct {
    tt_served pub; /* first: a tt_served is cast back */
    tt_model *model;
    tt_weights *weights;
    tt_config *config;
    tt_tok *tok;
    tt_image_model image; /* of an image model; pub.image leads here */
    tt_generator *generator;
    tt_generator_info nobody; /* of a codec alone: stands for the generator */
    tt_codec *codec;
    tt_weights *codec_weights;
    tt_config *codec_config;
    tt_labels *labels;
    tt_text_encoder *text;
    tt_verifier *verifier;
    char *id, *folder, *why_no_chat;
} served;

tt_model *tt_served_model(const tt_served *m) { return ((const served *)m)->model; }
tt_generator *tt_served_generator(const tt_served *m) { return ((const served *)m)->generator; }
tt_codec *tt_served_codec(const tt_served *m) { return ((const served *)m)->codec; }

void tt_served_close(tt_served *s)
{
    served *m = (served *)s;
    if (!m)
        return;
    tt_model_close(m->model);
    tt_verifier_close(m->verifier);
    tt_generator_close(m->generator);
    tt_codec_close(m->codec);
    tt_weights_close(m->weights);
    tt_config_close(m->config);
    tt_weights_close(m->codec_weights);
    tt_config_close(m->codec_config);
    tt_labels_close(m->labels);
    tt_text_encoder_close(m->text);
    tt_tok_close(m->tok);
    free(m->id);
    free(m->folder);
    free(m->why_no_chat);
    free(m);
}

/* --- what all have --- */

static void add_tensors(XXH3_state_t *x, const tt_weights *w)
{
    tt_tensor t;
    const char *name;
    for (size_t i = 0; (name = tt_weights_name(w, i, &t)); i++) {
        XXH3_128bits_update(x, name, strlen(name));
        XXH3_128bits_update(x, t.dim, sizeof t.dim);
        size_t bytes = (size_t)tt_tensor_count(&t) * tt_dtype_size(t.dtype);
        XXH3_128bits_update(x, t.data, bytes < 256 ? bytes : 256);
    }
}

static void fingerprint(served *m)
{
    XXH3_state_t *x = XXH3_createState();
    const char *name =
        m->pub.image ? m->pub.image->generator->architecture : m->pub.info.architecture;
    XXH3_128bits_reset(x);
    XXH3_128bits_update(x, name, strlen(name));
    if (m->weights)
        add_tensors(x, m->weights);
    if (m->codec_weights)
        add_tensors(x, m->codec_weights);
    XXH128_hash_t h = XXH3_128bits_digest(x);
    XXH3_freeState(x);
    snprintf(m->pub.digest, sizeof m->pub.digest, "%016llx%016llx", (unsigned long long)h.high64,
             (unsigned long long)h.low64);
}

static int64_t written(const char *folder)
{
    static const char *const file[] = {"model.safetensors", "model.safetensors.index.json"};
    for (int i = 0; i < 2; i++) {
        char path[4096];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", folder, file[i]);
        if (!stat(path, &st))
            return (int64_t)st.st_mtime;
    }
    return 0;
}

static void report_unread(const served *m, const tt_config *c, const char *file)
{
    tt_buf unread = {0};
    if (tt_config_unread(c, &unread))
        tt_log(TT_LOG_WARN, "config", "model=%s file=%s unread=\"%s\"", m->id, file,
               tt_buf_text(&unread));
    tt_buf_free(&unread);
}

/* --- text models --- */

static bool exists(const char *folder, const char *file)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    return access(path, F_OK) == 0;
}

static tt_status open_tokenizer(served *m, tt_err *e)
{
    if (!exists(m->folder, "tokenizer.json") && !exists(m->folder, "tokenizer.model"))
        return TT_OK;
    tt_status s = tt_tok_open(&m->tok, m->folder, e);
    m->pub.tok = m->tok;
    return s ? tt_context(e, s, "tokenizer of '%.100s'", m->folder) : TT_OK;
}

/* A folder without a usable template still serves completions; chat then says why not. */
static tt_status find_chat(served *m, tt_err *e)
{
    tt_err why = {0};
    snprintf(why.text, sizeof why.text, "model '%.80s' has no %s", m->id,
             m->tok ? "chat template" : "tokenizer");
    if (m->tok)
        tt_chat_find(&m->pub.chat, m->tok, NULL, &why);
    if (m->pub.chat)
        return TT_OK;
    m->pub.why_no_chat = m->why_no_chat = strdup(why.text);
    return m->why_no_chat ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a model");
}

static void add_stop(tt_served *p, int32_t id)
{
    for (int i = 0; i < p->stop_ids; i++)
        if (p->stop_id[i] == id)
            return;
    int room = (int)(sizeof p->stop_id / sizeof *p->stop_id);
    if (id >= 0 && id < p->info.vocab && p->stop_ids < room)
        p->stop_id[p->stop_ids++] = id;
}

static void find_stops(served *m)
{
    tt_model_info *info = &m->model->info;
    int32_t id[8];
    m->pub.info = *info;
    size_t n = m->pub.chat ? tt_chat_stops(m->pub.chat, m->tok, id, 8) : 0;
    add_stop(&m->pub, info->eos_id);
    add_stop(&m->pub, info->eot_id);
    add_stop(&m->pub, m->tok ? tt_tok_eos(m->tok) : -1);
    for (size_t i = 0; i < n; i++) {
        add_stop(&m->pub, id[i]);
        /* Released configs do not name the end-of-turn token; the chat format does. */
        if (info->eot_id < 0 && id[i] != info->eos_id)
            info->eot_id = id[i];
    }
    m->pub.info = *info;
}

static tt_status load_text(served *m, const tt_loading *how, tt_err *e)
{
    pthread_mutex_lock(how->device);
    tt_status s = (how->random ? tt_model_open_random : tt_model_open)(
        &m->model, &m->weights, &m->config, how->stream, m->folder, how->mode, how->progress,
        how->arg, e);
    pthread_mutex_unlock(how->device);
    if (s)
        return s;
    report_unread(m, m->config, "config.json");
    if ((s = open_tokenizer(m, e)) ||
        (s = tt_mask_find(&m->model->info, m->folder, m->tok, e)) || (s = find_chat(m, e)))
        return s;
    find_stops(m);
    return TT_OK;
}

/* --- image models --- */

static tt_status open_codec(served *m, const tt_loading *how, tt_err *e)
{
    char folder[4096];
    const char *name = tt_config_text(m->config, "codec", "vqgan");
    tt_status s = tt_beside(folder, sizeof folder, m->folder, "codec", name, e);
    if (s)
        return s;
    s = tt_codec_open(&m->codec, &m->codec_weights, &m->codec_config, how->stream, folder,
                      how->mode, how->random, e);
    return s ? tt_context(e, s, "codec '%.60s'", name) : TT_OK;
}

/* A generator that gives one token after the other does not know what the codec makes of them. */
static tt_status check_layouts(const served *m, tt_err *e)
{
    const tt_layout *a = &m->generator->info.layout, *b = &m->codec->info.layout;
    bool single = m->generator->info.kind == TT_GENERATES_NEXT;
    if (single && a->tokens == b->tokens && a->codes == b->codes)
        return TT_OK;
    if (a->kind == b->kind && a->tokens == b->tokens && a->codes == b->codes &&
        a->rows == b->rows && a->columns == b->columns)
        return TT_OK;
    return tt_fail(e, TT_EFORMAT,
                   "the generator makes %d tokens of %d codes, the codec's images have %d of %d",
                   a->tokens, a->codes, b->tokens, b->codes);
}

/* How many ids of a prompt the model was trained on; released configs say it deep inside. */
static int32_t longest_prompt(tt_config *c)
{
    static const char *const path[] = {"model", "meta_model", "models", "text_encoder",
                                       "t5_embedder"};
    tt_config *level[5] = {NULL};
    tt_status s = TT_OK;
    for (int i = 0; i < 5 && !s; i++)
        s = tt_config_member(&level[i], i ? level[i - 1] : c, path[i], NULL);
    int32_t n = s ? 128 : (int32_t)tt_config_int(level[4], "encoder_seqlen_max", 128, 1, 1 << 14);
    for (int i = 0; i < 5; i++)
        tt_config_close(level[i]);
    return n;
}

/* What reads the prompts lies in a folder of its own, too. */
static tt_status open_text_encoder(served *m, const tt_loading *how, tt_err *e)
{
    char folder[4096];
    const char *name = tt_config_text(m->config, "text_encoder", "t5");
    int64_t width = m->generator->info.text_width;
    if (!width)
        return TT_OK;
    if (!*name || strchr(name, '/') || *name == '.')
        return tt_fail(e, TT_EFORMAT, "config.json: text_encoder '%.60s' is not the name of a "
                       "folder", name);
    snprintf(folder, sizeof folder, "%s/%s", m->folder, name);
    return tt_text_encoder_open(&m->text, how->stream, folder, longest_prompt(m->config), width,
                                how->mode, how->random, e);
}

static tt_status load_image(served *m, const tt_loading *how, tt_err *e)
{
    pthread_mutex_lock(how->device);
    tt_status s = tt_generator_open(&m->generator, &m->weights, &m->config, how->stream, m->folder,
                                    how->mode, how->random, e);
    if (!s)
        s = open_codec(m, how, e);
    if (!s)
        s = open_text_encoder(m, how, e);
    pthread_mutex_unlock(how->device);
    if (!s)
        s = check_layouts(m, e);
    if (!s)
        s = tt_labels_open(&m->labels, m->folder,
                           tt_config_text(m->config, "labels", "labels.json"), &m->generator->info,
                           e);
    if (s)
        return s;
    report_unread(m, m->config, "config.json");
    report_unread(m, m->codec_config, "the codec's config.json");
    m->image = (tt_image_model){.generator = &m->generator->info,
                                .codec = m->codec,
                                .planner = tt_planner_for(m->generator->info.kind),
                                .labels = m->labels,
                                .text = m->text};
    m->pub.image = &m->image;
    return m->image.planner ? TT_OK
                            : tt_fail(e, TT_EUNSUP, "no planner for the %s family",
                                      m->generator->info.family);
}

/* A folder that holds a codec and nothing that makes its tokens. */
static tt_status load_codec(served *m, const tt_loading *how, tt_err *e)
{
    pthread_mutex_lock(how->device);
    tt_status s = tt_codec_open(&m->codec, &m->codec_weights, &m->codec_config, how->stream,
                                m->folder, how->mode, how->random, e);
    pthread_mutex_unlock(how->device);
    if (s)
        return s;
    const tt_codec_info *c = &m->codec->info;
    report_unread(m, m->codec_config, "config.json");
    m->nobody = (tt_generator_info){.family = c->family, .architecture = c->architecture,
                                    .layout = c->layout, .mask_id = c->layout.codes,
                                    .compute = c->compute};
    m->image = (tt_image_model){.generator = &m->nobody, .codec = m->codec};
    m->pub.image = &m->image;
    return TT_OK;
}

/* --- any --- */

static tt_status load_verifier(served *m, const tt_loading *how, tt_err *e)
{
    pthread_mutex_lock(how->device);
    tt_status s = tt_verifier_open(&m->verifier, how->stream, m->folder, how->mode, e);
    pthread_mutex_unlock(how->device);
    m->pub.verifier = m->verifier;
    return s;
}

/* Verifiers make nothing: they have no defaults and no fingerprint. */
static tt_status load(served *m, const tt_loading *how, tt_err *e)
{
    bool image = tt_generator_in(m->folder), verifier = !image && tt_verifier_in(m->folder);
    tt_status s = image                    ? load_image(m, how, e)
                  : verifier               ? load_verifier(m, how, e)
                  : tt_codec_in(m->folder) ? load_codec(m, how, e)
                                           : load_text(m, how, e);
    if (!s && !verifier)
        s = tt_defaults_read(m->folder, m->pub.image ? NULL : &m->pub.info, &m->pub.sampler,
                             &m->pub.defaults, e);
    if (s)
        return s;
    m->pub.created = written(m->folder);
    if (!verifier)
        fingerprint(m);
    return TT_OK;
}

tt_status tt_served_open(tt_served **out, const char *id, const char *folder,
                         const tt_loading *how, tt_err *e)
{
    *out = NULL;
    served *m = calloc(1, sizeof *m);
    if (!m)
        return tt_fail(e, TT_ENOMEM, "no memory for a model");
    m->pub.id = m->id = strdup(id);
    m->pub.folder = m->folder = strdup(folder);
    tt_status s = m->id && m->folder ? load(m, how, e)
                                     : tt_fail(e, TT_ENOMEM, "no memory for a model");
    if (s) {
        pthread_mutex_lock(how->device);
        tt_served_close(&m->pub);
        pthread_mutex_unlock(how->device);
        return s;
    }
    *out = &m->pub;
    return TT_OK;
}
