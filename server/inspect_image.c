/* inspect_image.c - see inspect_image.h. */
#include "server/inspect_image.h"

#include <stdio.h>

#include "samplers/image.h"
#include "samplers/search.h"
#include "samplers/verifier.h"
#include "server/beside.h"
#include "server/labels.h"
#include "tokenizers/image.h"

typedef struct {
    tt_stream *stream;
    tt_generator *generator;
    tt_codec *codec;
    tt_weights *weights, *codec_weights;
    tt_config *config, *codec_config;
    tt_labels *labels;
} opened;

static tt_status open_all(opened *o, const char *folder, tt_err *e)
{
    char codec[4200];
    tt_status s = tt_stream_open(&o->stream, "plain", 1, e);
    if (!s && !tt_generator_in(folder)) /* a codec alone */
        return tt_codec_open(&o->codec, &o->codec_weights, &o->codec_config, o->stream, folder,
                             TT_WEIGHTS_AUTO, false, e);
    if (!s)
        s = tt_generator_open(&o->generator, &o->weights, &o->config, o->stream, folder,
                              TT_WEIGHTS_AUTO, false, e);
    if (s)
        return s;
    s = tt_beside(codec, sizeof codec, folder, "codec", tt_config_text(o->config, "codec", "vqgan"),
                  e);
    if (s)
        return s;
    s = tt_codec_open(&o->codec, &o->codec_weights, &o->codec_config, o->stream, codec,
                      TT_WEIGHTS_AUTO, false, e);
    return s ? s
             : tt_labels_open(&o->labels, folder,
                              tt_config_text(o->config, "labels", "labels.json"),
                              &o->generator->info, e);
}

static void close_all(opened *o)
{
    tt_labels_close(o->labels);
    tt_generator_close(o->generator);
    tt_codec_close(o->codec);
    tt_weights_close(o->weights);
    tt_weights_close(o->codec_weights);
    tt_config_close(o->config);
    tt_config_close(o->codec_config);
    tt_stream_close(o->stream);
}

static void print_unread(const tt_config *c)
{
    tt_buf unread = {0};
    int n = tt_config_unread(c, &unread);
    printf("config        %s%s\n", n ? "keys not understood: " : "every key understood",
           tt_buf_text(&unread));
    tt_buf_free(&unread);
}

static void print_generator(const opened *o)
{
    const tt_generator_info *g = &o->generator->info;
    printf("family        %s: %s\n", g->family, o->generator->def->summary);
    printf("after         %s\n", o->generator->def->source);
    printf("layers        %lld of width %lld; heads %lld of %lld\n", (long long)g->layers,
           (long long)g->width, (long long)g->heads, (long long)g->head_dim);
    printf("labels       ");
    for (int32_t i = 0; i < g->groups; i++)
        printf(" %d%s%s", g->group[i], o->labels ? " of " : "",
               o->labels ? tt_labels_group(o->labels, i) : "");
    printf("%s\n", g->groups ? "" : " none: unconditional");
    printf("parameters    %lld; %.1f MB on disk, %.1f MB loaded (%s)\n", (long long)g->parameters,
           (double)tt_weights_bytes(o->weights) / 1e6, (double)g->weight_bytes / 1e6, g->compute);
    print_unread(o->config);
}

static void print_codec(const opened *o)
{
    const tt_codec_info *c = &o->codec->info;
    printf("codec         %s: %s\n", c->family, o->codec->def->summary);
    printf("after         %s\n", o->codec->def->source);
    printf("pixels        %d x %d in %d tokens", c->width, c->height, c->layout.tokens);
    if (c->layout.kind == TT_LAYOUT_GRID)
        printf(" (%d x %d)", c->layout.rows, c->layout.columns);
    printf(" of %d codes%s%s\n", c->layout.codes, c->spatial ? "; can be edited by masks" : "",
           c->prefix_decodable ? "; the first tokens are an image too" : "");
    if (c->crops)
        printf("reading       by up to %d crops\n", c->crops);
    if (c->painting.steps)
        printf("painting      usually %d steps, guidance %g\n", c->painting.steps,
               c->painting.guidance);
    printf("parameters    %lld; %.1f MB on disk, %.1f MB loaded (%s)\n", (long long)c->parameters,
           (double)tt_weights_bytes(o->codec_weights) / 1e6, (double)c->weight_bytes / 1e6,
           c->compute);
    print_unread(o->codec_config);
}

static void print_needs(const opened *o)
{
    if (!o->generator) {
        printf("per image     %.2f MB for its pixels\n",
               (double)tt_codec_bytes(o->codec, 1) / 1e6);
        return;
    }
    const tt_planner *p = tt_planner_for(o->generator->info.kind);
    printf("per image     %.2f MB while it is made, %.2f MB for its pixels\n",
           (double)(o->generator->info.state_bytes + tt_generator_step_bytes(o->generator, 1)) /
               1e6,
           (double)tt_codec_bytes(o->codec, 1) / 1e6);
    printf("sampler       %s; parameters", p ? p->name : "none in this build");
    for (int i = 0; p && p->params[i]; i++)
        printf(" %s", p->params[i]);
    printf("\n");
}

tt_status tt_inspect_image(const char *folder, bool tensors, tt_err *e)
{
    opened o = {0};
    tt_status s = open_all(&o, folder, e);
    if (!s) {
        if (o.generator)
            print_generator(&o);
        print_codec(&o);
        print_needs(&o);
        if (tensors) {
            if (o.weights)
                tt_print_tensors(o.weights);
            tt_print_tensors(o.codec_weights);
        }
    }
    close_all(&o);
    return s;
}

tt_status tt_inspect_verifier(const char *folder, tt_err *e)
{
    tt_stream *stream = NULL;
    tt_verifier *v = NULL;
    tt_status s = tt_stream_open(&stream, "plain", 1, e);
    if (!s)
        s = tt_verifier_open(&v, stream, folder, TT_WEIGHTS_AUTO, e);
    if (!s) {
        printf("verifier      %s: %s\n", v->def->name, v->def->summary);
        printf("after         %s\n", v->def->source);
        printf("parameters    %.2f M\n", (double)v->info.parameters * 1e-6);
        printf("sees          %dx%d pixels%s\n", v->info.side, v->info.side,
               v->def->reads_prompt ? " and the prompt" : "");
    }
    tt_verifier_close(v);
    tt_stream_close(stream);
    return s;
}

static void list_names(const char *const *name)
{
    for (; *name; name++)
        printf(" %s", *name);
    printf("\n");
}

void tt_list_images(void)
{
    printf("image generators\n");
    for (const tt_generator_def *const *g = tt_generator_all(); *g; g++) {
        printf("  %s: %s\n    after %s\n    architectures", (*g)->family, (*g)->summary,
               (*g)->source);
        list_names((*g)->architectures);
    }
    printf("image codecs\n");
    for (const tt_codec_def *const *c = tt_codec_all(); *c; c++) {
        printf("  %s: %s\n    after %s\n    architectures", (*c)->family, (*c)->summary,
               (*c)->source);
        list_names((*c)->architectures);
    }
    printf("image samplers\n");
    for (const tt_planner *const *p = tt_planner_all(); *p; p++) {
        printf("  %s: %s\n    after %s\n    parameters", (*p)->name, (*p)->summary, (*p)->source);
        list_names((*p)->params);
    }
    printf("searches\n");
    for (const tt_search_def *const *d = tt_search_all(); *d; d++)
        printf("  %s: %s\n    after %s\n", (*d)->name, (*d)->summary, (*d)->source);
    printf("verifiers\n");
    for (const tt_verifier_def *const *v = tt_verifier_all(); *v; v++) {
        printf("  %s: %s\n    after %s\n    architectures", (*v)->name, (*v)->summary,
               (*v)->source);
        list_names((*v)->architectures);
    }
    printf("orders of images\n");
    for (int i = 0; tt_order_names[i]; i++)
        printf("  %s: %s\n    after %s\n", tt_orders[i]->name, tt_orders[i]->summary,
               tt_orders[i]->source);
}
