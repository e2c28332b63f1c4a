/* models.c - GET /v1/models and /v1/models/{id}: what can be asked of which model. */
#include <stdio.h>

#include "server/api/api.h"
#include "server/guide.h"
#include "server/json_write.h"

static void put_value(const tt_param *p, const char *key, double v, tt_json *w)
{
    if (p->type == TT_PARAM_CHOICE)
        tt_json_text_member(w, key, p->choices[(int)v]);
    else if (p->type == TT_PARAM_BOOL)
        tt_json_bool_member(w, key, v != 0);
    else
        tt_json_float_member(w, key, v);
}

/* s: the sampler it is for; NULL: an image planner. */
static void write_param(const tt_params *defaults, const tt_sampler *s, const tt_param *p,
                        tt_json *w)
{
    static const char *const types[] = {
        [TT_PARAM_INT] = "int",
        [TT_PARAM_FLOAT] = "float",
        [TT_PARAM_BOOL] = "bool",
        [TT_PARAM_CHOICE] = "choice",
    };
    tt_json_open(w, '{');
    tt_json_text_member(w, "name", p->name);
    tt_json_text_member(w, "type", types[p->type]);
    double value = tt_params_get(defaults, p);
    if (s && p->type == TT_PARAM_CHOICE && !tt_sampler_takes(s, p, (int)value))
        value = p->fallback; /* the model's default is for its own sampler */
    put_value(p, "default", value, w);
    if (p->type == TT_PARAM_INT || p->type == TT_PARAM_FLOAT) {
        tt_json_float_member(w, "min", p->min);
        tt_json_float_member(w, "max", p->max);
    }
    if (p->type == TT_PARAM_CHOICE) {
        tt_json_open_member(w, "choices", '[');
        for (int i = 0; p->choices[i]; i++)
            if (!s || tt_sampler_takes(s, p, i))
                tt_json_put_text(w, p->choices[i]);
        tt_json_close(w, ']');
    }
    tt_json_text_member(w, "help", p->help);
    tt_json_close(w, '}');
}

/* The ids of the open models that can guide this one; whether there are any. */
static bool write_guides(const tt_engine *g, const tt_served *m, tt_json *w)
{
    bool any = false;
    tt_json_open_member(w, "guides", '[');
    for (size_t i = 0; i < tt_engine_models(g); i++) {
        const tt_served *guide = tt_engine_model(g, i);
        if (!(m->info.kinds & TT_KIND_BIDIRECTIONAL) || tt_guide_check(m, guide, NULL))
            continue;
        tt_json_put_text(w, guide->id);
        any = true;
    }
    tt_json_close(w, ']');
    return any;
}

/* Samplers this model can run, each with the parameters it reads and their values here. */
static void write_samplers(const tt_served *m, bool guided, tt_json *w)
{
    size_t n;
    const tt_param *all = tt_param_all(&n);
    tt_json_open_member(w, "samplers", '[');
    for (const tt_sampler *const *s = tt_sampler_all(); *s; s++) {
        if (!tt_sampler_fits(*s, m->info.kinds) || ((*s)->needs_guide && !guided))
            continue;
        tt_json_open(w, '{');
        tt_json_text_member(w, "name", (*s)->name);
        tt_json_text_member(w, "summary", (*s)->summary);
        tt_json_text_member(w, "source", (*s)->source);
        tt_json_bool_member(w, "default", *s == m->sampler);
        tt_json_bool_member(w, "revises", (*s)->revises);
        tt_json_open_member(w, "parameters", '[');
        for (size_t i = 0; i < n; i++)
            if (tt_sampler_reads(*s, &all[i]))
                write_param(&m->defaults, *s, &all[i], w);
        tt_json_close(w, ']');
        tt_json_close(w, '}');
    }
    tt_json_close(w, ']');
}

/* --- image models --- */

static const char *const layout_names[] = {
    [TT_LAYOUT_GRID] = "grid",
    [TT_LAYOUT_SEQUENCE] = "sequence",
    [TT_LAYOUT_LEVELS] = "levels",
    [TT_LAYOUT_SCALES] = "scales",
};

/* How pictures are read and painted, where a request may say so. */
static void write_painting(const tt_codec_info *c, tt_json *w)
{
    if (c->crops)
        tt_json_int_member(w, "crops", c->crops);
    if (!c->painting.steps)
        return;
    tt_json_open_member(w, "paint", '{');
    tt_json_int_member(w, "steps", c->painting.steps);
    tt_json_text_member(w, "solver",
                        c->painting.solver == TT_FLOW_MIDPOINT ? "midpoint" : "euler");
    tt_json_float_member(w, "guidance", c->painting.guidance);
    tt_json_float_member(w, "momentum", c->painting.momentum);
    tt_json_close(w, '}');
}

static void write_planner(const tt_served *m, tt_json *w)
{
    size_t n;
    const tt_param *all = tt_param_all(&n);
    const tt_planner *p = m->image->planner;
    tt_json_text_member(w, "default_sampler", p->name);
    tt_json_open_member(w, "samplers", '[');
    tt_json_open(w, '{');
    tt_json_text_member(w, "name", p->name);
    tt_json_text_member(w, "summary", p->summary);
    tt_json_text_member(w, "source", p->source);
    tt_json_bool_member(w, "default", true);
    tt_json_open_member(w, "parameters", '[');
    for (size_t i = 0; i < n; i++)
        if (tt_planner_reads(p, &all[i]))
            write_param(&m->defaults, NULL, &all[i], w);
    tt_json_close(w, ']');
    tt_json_close(w, '}');
    tt_json_close(w, ']');
}

static void write_image(const tt_served *m, tt_json *w)
{
    const tt_generator_info *g = m->image->generator;
    const tt_codec_info *c = &m->image->codec->info;
    char size[32];
    snprintf(size, sizeof size, "%dx%d", c->width, c->height);
    tt_json_open_member(w, "tutti", '{');
    tt_json_text_member(w, "family", c->spatial ? "image_nat" : "image_1d");
    tt_json_text_member(w, "architecture", g->architecture);
    tt_json_open_member(w, "capabilities", '[');
    if (m->image->planner)
        tt_json_put_text(w, "image_generation");
    if (m->image->planner && c->spatial)
        tt_json_put_text(w, "image_edit");
    if (m->image->planner || c->painting.steps)
        tt_json_put_text(w, "image_variation");
    tt_json_put_text(w, "image_tokens");
    if (c->mixes)
        tt_json_put_text(w, "image_token_mixing");
    if (c->prefix_decodable)
        tt_json_put_text(w, "image_token_prefixes");
    tt_json_close(w, ']');
    tt_json_open_member(w, "sizes", '[');
    tt_json_put_text(w, size);
    tt_json_close(w, ']');
    tt_json_text_member(w, "layout", layout_names[c->layout.kind]);
    tt_json_int_member(w, "rows", c->layout.rows);
    tt_json_int_member(w, "columns", c->layout.columns);
    tt_json_int_member(w, "tokens", c->layout.tokens);
    tt_json_int_member(w, "codes", c->layout.codes);
    tt_json_open_member(w, "classes", '[');
    for (int32_t i = 0; i < g->groups; i++)
        tt_json_put_int(w, g->group[i]);
    tt_json_close(w, ']');
    tt_json_bool_member(w, "labels", m->image->labels != NULL);
    tt_json_bool_member(w, "reads_prompts", m->image->text != NULL);
    tt_json_int_member(w, "parameters", g->parameters + c->parameters);
    tt_json_int_member(w, "weight_bytes", (int64_t)(g->weight_bytes + c->weight_bytes));
    tt_json_text_member(w, "compute", g->compute);
    tt_json_text_member(w, "digest", m->digest);
    write_painting(c, w);
    if (m->image->planner)
        write_planner(m, w);
    tt_json_close(w, '}');
}

/* --- any --- */

static const char *kind(const tt_served *m)
{
    if (m->info.kinds & TT_KIND_RECURRENT)
        return "recurrent_depth";
    if (m->info.kinds & TT_KIND_CAUSAL)
        return "autoregressive";
    if (m->info.kinds & TT_KIND_BLOCKS)
        return "block_diffusion";
    return m->info.kinds & TT_KIND_INSERTION ? "insertion" : "mdlm";
}

static void write_extension(const tt_engine *g, const tt_served *m, tt_json *w)
{
    tt_json_open_member(w, "tutti", '{');
    tt_json_text_member(w, "family", kind(m));
    tt_json_text_member(w, "architecture", m->info.architecture);
    tt_json_open_member(w, "capabilities", '[');
    bool fills = m->info.kinds & TT_KIND_BIDIRECTIONAL;
    bool inserts = m->info.kinds & TT_KIND_INSERTION;
    bool writes = fills || inserts || m->info.kinds & (TT_KIND_BLOCKS | TT_KIND_RECURRENT);
    if (writes)
        tt_json_put_text(w, "completion");
    if (writes && m->chat)
        tt_json_put_text(w, "chat");
    if ((fills || inserts) && m->tok)
        tt_json_put_text(w, "infill");
    if (m->info.kinds & TT_KIND_CAUSAL)
        tt_json_put_text(w, "guide");
    if (!inserts) {
        tt_json_put_text(w, "likelihood");
        tt_json_put_text(w, "embeddings");
    }
    tt_json_close(w, ']');
    tt_json_int_member(w, "context", m->info.context);
    tt_json_int_member(w, "vocabulary", m->info.vocab);
    tt_json_int_member(w, "mask_id", m->info.mask_id);
    tt_json_int_member(w, "parameters", m->info.parameters);
    tt_json_int_member(w, "weight_bytes", (int64_t)m->info.weight_bytes);
    tt_json_text_member(w, "compute", m->info.compute);
    tt_json_text_member(w, "digest", m->digest);
    tt_json_text_member(w, "chat_format", m->chat ? tt_chat_name(m->chat) : NULL);
    tt_json_text_member(w, "default_sampler", m->sampler ? m->sampler->name : NULL);
    write_samplers(m, write_guides(g, m, w), w);
    tt_json_close(w, '}');
}

static void write_verifier(const tt_served *m, tt_json *w)
{
    const tt_verifier *v = m->verifier;
    tt_json_open_member(w, "tutti", '{');
    tt_json_text_member(w, "family", "verifier");
    tt_json_text_member(w, "kind", v->def->name);
    tt_json_open_member(w, "capabilities", '[');
    tt_json_put_text(w, "verifier");
    tt_json_close(w, ']');
    tt_json_text_member(w, "summary", v->def->summary);
    tt_json_text_member(w, "source", v->def->source);
    tt_json_bool_member(w, "reads_prompt", v->def->reads_prompt);
    tt_json_int_member(w, "side", v->info.side);
    tt_json_int_member(w, "parameters", v->info.parameters);
    tt_json_close(w, '}');
}

/* A program that scores; its address stays the operator's. */
static void write_program(const tt_scorer *s, tt_json *w)
{
    tt_json_open(w, '{');
    tt_json_text_member(w, "id", s->name);
    tt_json_text_member(w, "object", "model");
    tt_json_int_member(w, "created", 0);
    tt_json_text_member(w, "owned_by", "operator");
    tt_json_open_member(w, "tutti", '{');
    tt_json_text_member(w, "family", "verifier");
    tt_json_text_member(w, "kind", "http");
    tt_json_open_member(w, "capabilities", '[');
    tt_json_put_text(w, "verifier");
    tt_json_close(w, ']');
    tt_json_int_member(w, "timeout_ms", s->timeout_ms);
    tt_json_close(w, '}');
    tt_json_close(w, '}');
}

static void write_model(const tt_engine *g, const tt_served *m, tt_json *w)
{
    tt_json_open(w, '{');
    tt_json_text_member(w, "id", m->id);
    tt_json_text_member(w, "object", "model");
    tt_json_int_member(w, "created", m->created);
    tt_json_text_member(w, "owned_by", "tutti");
    if (m->verifier) {
        write_verifier(m, w);
    } else if (m->image) {
        write_image(m, w);
    } else {
        tt_json_int_member(w, "max_model_len", m->info.context);
        write_extension(g, m, w);
    }
    tt_json_close(w, '}');
}

void tt_api_models(const tt_call *c, tt_reply *r)
{
    tt_json w = {.out = &r->body};
    tt_json_open(&w, '{');
    tt_json_text_member(&w, "object", "list");
    tt_json_open_member(&w, "data", '[');
    for (size_t i = 0; i < tt_engine_models(c->api->engine); i++)
        write_model(c->api->engine, tt_engine_model(c->api->engine, i), &w);
    for (int i = 0; i < c->api->scorers; i++)
        write_program(&c->api->scorer[i], &w);
    tt_json_close(&w, ']');
    tt_json_close(&w, '}');
    r->status = 200;
}

void tt_api_model(const tt_call *c, tt_reply *r)
{
    tt_err e = {0};
    const tt_served *m = c->api->engine ? tt_engine_find(c->api->engine, c->tail) : NULL;
    if (!(m && m->verifier) && tt_api_find_model(c->api, c->tail, true, &m, &e)) {
        tt_reply_error(r, &e);
        return;
    }
    tt_json w = {.out = &r->body};
    write_model(c->api->engine, m, &w);
    r->status = 200;
}
