/* cmd_inspect.c - `tutti inspect`: what a model folder holds and needs; what this build knows. */
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "kernels/base/log.h"
#include "models/generator.h"
#include "samplers/sampler.h"
#include "samplers/verifier.h"
#include "server/cmd.h"
#include "server/defaults.h"
#include "server/inspect_image.h"
#include "server/mask.h"
#include "server/models_dir.h"
#include "tokenizers/image.h"
#include "tokenizers/text.h"

typedef struct {
    const char *model;
    bool list, tensors;
} inspect_args;

static const struct argp_option options[] = {
    {"list", 'l', NULL, 0, "list families, samplers and parameters of this build", 0},
    {"tensors", 't', NULL, 0, "list every tensor of the weights", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    inspect_args *a = state->input;
    switch (key) {
    case 'l':
        a->list = true;
        return 0;
    case 't':
        a->tensors = true;
        return 0;
    case ARGP_KEY_ARG:
        if (a->model)
            argp_error(state, "one model at a time; '%.60s' is too many", arg);
        a->model = arg;
        return 0;
    case ARGP_KEY_END:
        if (!a->model && !a->list)
            argp_error(state, "give a model's id or folder, or --list");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp inspect_argp = {
    options,
    parse,
    "[MODEL]",
    "What a model folder holds and needs. MODEL is the id of a model that comes with the program, "
    "or a folder in Hugging Face form.",
    NULL,
    NULL,
    NULL};

/* --- what this build knows --- */

/* By bit. */
static const char *kind_names[] = {"bidirectional", "causal", "insertion", "blocks",
                                   "noise level", [6] = "recurrent depth"};

static void print_kinds(uint32_t kinds)
{
    const char *comma = "";
    for (size_t i = 0; i < sizeof kind_names / sizeof *kind_names; i++)
        if (kind_names[i] && kinds & 1u << i) {
            printf("%s%s", comma, kind_names[i]);
            comma = ", ";
        }
}

static void list_families(void)
{
    printf("families\n");
    for (const tt_model_def *const *m = tt_model_all(); *m; m++) {
        printf("  %s: %s\n    after %s\n    kind ", (*m)->family, (*m)->summary, (*m)->source);
        print_kinds((*m)->kinds);
        printf("; architectures");
        for (const char *const *a = (*m)->architectures; *a; a++)
            printf(" %s", *a);
        printf("\n");
    }
}

/* "; caches none prefix, auto is prefix" */
static void print_caches(const tt_sampler *s)
{
    if (!s->caches)
        return;
    printf("; caches");
    for (int i = 0; tt_cache_names[i]; i++)
        if (s->caches >> i & 1)
            printf(" %s", tt_cache_names[i]);
    printf(", auto is %s", tt_cache_names[s->best_cache]);
}

static void list_samplers(void)
{
    printf("samplers\n");
    for (const tt_sampler *const *s = tt_sampler_all(); *s; s++) {
        printf("  %s: %s\n    after %s\n    needs ", (*s)->name, (*s)->summary, (*s)->source);
        print_kinds((*s)->needs);
        printf("%s", (*s)->revises ? "; revises tokens until their block is full" : "");
        print_caches(*s);
        printf("\n    parameters");
        for (const char *const *p = (*s)->params; *p; p++)
            printf(" %s", *p);
        printf("\n");
    }
}

static void print_range(const tt_param *p)
{
    switch (p->type) {
    case TT_PARAM_BOOL:
        printf("true or false, default %s", p->fallback != 0 ? "true" : "false");
        break;
    case TT_PARAM_CHOICE:
        for (int i = 0; p->choices[i]; i++)
            printf("%s%s", i ? "|" : "", p->choices[i]);
        printf(", default %s", p->choices[(int)p->fallback]);
        break;
    case TT_PARAM_INT:
        printf("whole %.0f..%.0f, default %.0f", p->min, p->max, p->fallback);
        break;
    case TT_PARAM_FLOAT:
        printf("number %g..%g, default %g", p->min, p->max, p->fallback);
        break;
    }
}

static void list_params(void)
{
    size_t n;
    const tt_param *p = tt_param_all(&n);
    printf("parameters\n");
    for (size_t i = 0; i < n; i++) {
        printf("  %s (", p[i].name);
        print_range(&p[i]);
        printf(")\n    %s\n", p[i].help);
    }
}

static void list_chats(void)
{
    printf("chat formats\n ");
    for (const char *const *c = tt_chat_names(); *c; c++)
        printf(" %s", *c);
    printf("\n");
}

/* --- one model --- */

typedef struct {
    tt_stream *stream;
    tt_model *model;
    tt_weights *weights;
    tt_config *config;
    tt_tok *tok;
    tt_err no_tok; /* why not */
    const tt_sampler *sampler; /* unless asked */
    tt_params defaults;
} opened;

static void close_all(opened *o)
{
    tt_tok_close(o->tok);
    tt_model_close(o->model);
    tt_config_close(o->config);
    tt_weights_close(o->weights);
    tt_stream_close(o->stream);
}

static tt_status open_all(opened *o, const char *folder, tt_err *e)
{
    tt_status s = tt_stream_open(&o->stream, "plain", 1, e);
    if (!s)
        s = tt_model_open(&o->model, &o->weights, &o->config, o->stream, folder, TT_WEIGHTS_AUTO,
                          NULL, NULL, e);
    if (!s && tt_tok_open(&o->tok, folder, &o->no_tok))
        o->tok = NULL;
    tt_err no_mask; /* the model opens all the same; its listing shows -1 */
    if (!s)
        tt_mask_find(&o->model->info, folder, o->tok, &no_mask);
    return s ? s : tt_defaults_read(folder, &o->model->info, &o->sampler, &o->defaults, e);
}

static void print_shape(const opened *o)
{
    const tt_model_info *m = &o->model->info;
    printf("family        %s: %s\n", m->family, o->model->def->summary);
    printf("after         %s\n", o->model->def->source);
    printf("architecture  %s (", m->architecture);
    print_kinds(m->kinds);
    printf(")\n");
    printf("layers        %lld of width %lld; heads %lld of %lld, %lld for keys and values\n",
           (long long)m->layers, (long long)m->width, (long long)m->heads, (long long)m->head_dim,
           (long long)m->kv_heads);
    printf("vocabulary    %lld; mask %d, eos %d, eot %d\n", (long long)m->vocab, m->mask_id,
           m->eos_id, m->eot_id);
    printf("context       %lld columns\n", (long long)m->context);
    if (m->recurrence)
        printf("recurrence    %d of %lld layers unless asked, behind %lld and before %lld others\n",
               m->recurrence, (long long)m->core_layers, (long long)m->prelude_layers,
               (long long)(m->layers - m->prelude_layers - m->core_layers));
    tt_buf unread = {0};
    int n = tt_config_unread(o->config, &unread);
    printf("config        %s%s\n", n ? "keys not understood: " : "every key understood",
           tt_buf_text(&unread));
    tt_buf_free(&unread);
}

static void print_memory(const opened *o)
{
    const tt_model_info *m = &o->model->info;
    int64_t columns = m->context < 256 ? m->context : 256;
    printf("parameters    %lld in %zu tensors\n", (long long)m->parameters,
           tt_weights_count(o->weights));
    printf("weights       %.1f MB on disk, %.1f MB loaded (%s)\n",
           (double)tt_weights_bytes(o->weights) / 1e6, (double)m->weight_bytes / 1e6, m->compute);
    printf("per request   %zu bytes a column of keys and values; with %lld columns: %.2f MB, "
           "and %.2f MB for its pass\n",
           m->kv_bytes_per_column, (long long)columns,
           (double)m->kv_bytes_per_column * (double)columns / 1e6,
           (double)o->model->def->pass_bytes(o->model, columns, columns) / 1e6);
}

static void print_chat(const tt_tok *tok)
{
    tt_err err = {0};
    const tt_chat_format *chat = NULL;
    if (tt_chat_find(&chat, tok, NULL, &err))
        printf("chat          no: %s\n", err.text);
    else
        printf("chat          %s\n", chat ? tt_chat_name(chat) : "no: the folder has no template");
}

static void print_text(const opened *o)
{
    if (!o->tok) {
        printf("tokenizer     none: %s; requests must send token ids\n", o->no_tok.text);
        return;
    }
    printf("tokenizer     %s, %d ids; bos %d, eos %d\n", tt_tok_kind(o->tok), tt_tok_vocab(o->tok),
           tt_tok_bos(o->tok), tt_tok_eos(o->tok));
    print_chat(o->tok);
}

static void print_samplers(const opened *o)
{
    if (tt_sampler_fits(o->sampler, o->model->info.kinds)) {
        printf("unless asked  sampler %s", o->sampler->name);
        if (o->defaults.block_length)
            printf(", blocks of %d", o->defaults.block_length);
        printf(", temperature %g\n", o->defaults.temperature);
    }
    printf("samplers     ");
    for (const tt_sampler *const *s = tt_sampler_all(); *s; s++)
        if (tt_sampler_fits(*s, o->model->info.kinds))
            printf(" %s", (*s)->name);
    printf("\n");
}

void tt_print_tensors(const tt_weights *w)
{
    printf("tensors\n");
    tt_tensor t;
    const char *name;
    for (size_t i = 0; (name = tt_weights_name(w, i, &t)); i++) {
        printf("  %-4s [", tt_dtype_name(t.dtype));
        for (int d = 0; d < t.rank; d++)
            printf("%s%lld", d ? ", " : "", (long long)t.dim[d]);
        printf("] %s\n", name);
    }
}

static int inspect_image(const inspect_args *a, const tt_model_place *place)
{
    tt_err err = {0};
    printf("model         %s\nfolder        %s\n", place->id, place->folder);
    tt_status s = tt_verifier_in(place->folder)
                      ? tt_inspect_verifier(place->folder, &err)
                      : tt_inspect_image(place->folder, a->tensors, &err);
    if (!s)
        return 0;
    fprintf(stderr, "tutti inspect: %s\n", err.text);
    return 1;
}

static int inspect(const inspect_args *a)
{
    tt_err err = {0};
    tt_model_place place;
    opened o = {0};
    tt_status s = tt_models_dir_find(a->model, &place, &err);
    if (!s && (tt_generator_in(place.folder) || tt_codec_in(place.folder) ||
               tt_verifier_in(place.folder)))
        return inspect_image(a, &place);
    if (!s)
        s = open_all(&o, place.folder, &err);
    if (s) {
        fprintf(stderr, "tutti inspect: %s\n", err.text);
        close_all(&o);
        return 1;
    }
    printf("model         %s\nfolder        %s\n", place.id, place.folder);
    print_shape(&o);
    print_memory(&o);
    print_text(&o);
    print_samplers(&o);
    if (a->tensors)
        tt_print_tensors(o.weights);
    close_all(&o);
    return 0;
}

int tt_cmd_inspect(int argc, char **argv)
{
    inspect_args a = {0};
    tt_log_set_level(TT_LOG_WARN);
    argp_parse(&inspect_argp, argc, argv, 0, NULL, &a);
    if (a.list) {
        list_families();
        list_samplers();
        tt_list_images();
        list_params();
        list_chats();
    }
    return a.model ? inspect(&a) : 0;
}
