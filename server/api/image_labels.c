/* image_labels.c - GET /v1/images/labels: the names image models know. */
#include "server/api/api.h"
#include "server/json_write.h"

static void put_group(const tt_image_model *m, int32_t k, tt_json *w)
{
    tt_json_open(w, '{');
    tt_json_text_member(w, "name", tt_labels_group(m->labels, k));
    tt_json_open_member(w, "labels", '[');
    for (int32_t i = 0; i < tt_labels_count(m->labels, k); i++)
        tt_json_put_text(w, tt_labels_name(m->labels, k, i));
    tt_json_close(w, ']');
    tt_json_close(w, '}');
}

static void put_model(const tt_served *m, tt_json *w)
{
    const tt_generator_info *g = m->image->generator;
    tt_json_open(w, '{');
    tt_json_text_member(w, "model", m->id);
    tt_json_open_member(w, "groups", '[');
    for (int32_t k = 0; k < g->groups; k++) {
        if (m->image->labels) {
            put_group(m->image, k, w);
            continue;
        }
        tt_json_open(w, '{'); /* numbers alone */
        tt_json_int_member(w, "classes", g->group[k]);
        tt_json_close(w, '}');
    }
    tt_json_close(w, ']');
    tt_json_close(w, '}');
}

void tt_api_image_labels(const tt_call *c, tt_reply *r)
{
    tt_json w = {.out = &r->body};
    tt_json_open(&w, '{');
    tt_json_text_member(&w, "object", "list");
    tt_json_open_member(&w, "data", '[');
    for (size_t i = 0; i < tt_engine_models(c->api->engine); i++)
        if (tt_engine_model(c->api->engine, i)->image &&
            tt_engine_model(c->api->engine, i)->image->planner)
            put_model(tt_engine_model(c->api->engine, i), &w);
    tt_json_close(&w, ']');
    tt_json_close(&w, '}');
    r->status = 200;
}
