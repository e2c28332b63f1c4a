/* openapi.c - GET /openapi.json: the document of the interface, written from the tables that the
 * server itself works by (routes, body fields, extension fields, sampling parameters), so that it
 * cannot say anything else. */
#include <string.h>

#include "server/api/api.h"
#include "server/api/fields.h"
#include "server/api/gen.h"
#include "server/api/search.h"
#include "samplers/image.h"
#include "server/json_write.h"

static void put_type(tt_json *w, const char *type) { tt_json_text_member(w, "type", type); }

static void put_array_of(tt_json *w, const char *type)
{
    tt_json_open(w, '{');
    put_type(w, "array");
    tt_json_open_member(w, "items", '{');
    put_type(w, type);
    tt_json_close(w, '}');
    tt_json_close(w, '}');
}

static void put_only_type(tt_json *w, const char *type)
{
    tt_json_open(w, '{');
    put_type(w, type);
    tt_json_close(w, '}');
}

static void put_prompt_type(tt_json *w)
{
    tt_json_open_member(w, "anyOf", '[');
    put_only_type(w, "string");
    put_array_of(w, "string");
    put_array_of(w, "integer");
    tt_json_open(w, '{');
    put_type(w, "array");
    tt_json_key(w, "items");
    put_array_of(w, "integer");
    tt_json_close(w, '}');
    tt_json_close(w, ']');
}

static void put_texts_type(const tt_field *f, tt_json *w)
{
    tt_json_open_member(w, "anyOf", '[');
    put_only_type(w, "string");
    tt_json_open(w, '{');
    put_type(w, "array");
    tt_json_open_member(w, "items", '{');
    put_type(w, "string");
    tt_json_close(w, '}');
    if (f->max > 0)
        tt_json_int_member(w, "maxItems", (int64_t)f->max);
    tt_json_close(w, '}');
    tt_json_close(w, ']');
}

static void put_number_type(const char *type, double min, double max, tt_json *w)
{
    put_type(w, type);
    if (!strcmp(type, "integer")) {
        tt_json_int_member(w, "minimum", (int64_t)min);
        tt_json_int_member(w, "maximum", (int64_t)max);
    } else {
        tt_json_float_member(w, "minimum", min);
        tt_json_float_member(w, "maximum", max);
    }
}

/* Members whose inside has a schema of its own. */
static const struct {
    const char *name, *schema, *items;
} inner[] = {
    {"messages", NULL, "Message"},
    {"segments", NULL, "Segment"},
    {"search", "TuttiSearch", NULL},
    {"tutti", "TuttiOptions", NULL},
    {"tutti", "TuttiReadOptions", NULL},
    {"tutti", "TuttiImageOptions", NULL},
};

/* The schema of a field's extension object. */
static const char *extension_of(const tt_field *f)
{
    return f->on & TT_ON_READ       ? "TuttiReadOptions"
           : f->on & TT_ON_PICTURES ? "TuttiImageOptions"
                                    : "TuttiOptions";
}

static bool put_reference(const tt_field *f, tt_json *w)
{
    for (size_t i = 0; i < sizeof inner / sizeof *inner; i++) {
        bool own = !strcmp(inner[i].name, "tutti");
        if (strcmp(inner[i].name, f->name) || (own && strcmp(inner[i].schema, extension_of(f))))
            continue;
        char path[64] = "#/components/schemas/";
        strcat(path, inner[i].schema ? inner[i].schema : inner[i].items);
        if (inner[i].items) {
            put_type(w, "array");
            tt_json_open_member(w, "items", '{');
        }
        tt_json_text_member(w, "$ref", path);
        if (inner[i].items)
            tt_json_close(w, '}');
        return true;
    }
    return false;
}

static void put_field_type(const tt_field *f, tt_json *w)
{
    if (put_reference(f, w))
        return;
    switch (f->type) {
    case TT_FIELD_TEXT:
        put_type(w, "string");
        break;
    case TT_FIELD_INT:
        put_number_type("integer", f->min, f->max, w);
        break;
    case TT_FIELD_NUMBER:
        put_number_type("number", f->min, f->max, w);
        break;
    case TT_FIELD_BOOL:
        put_type(w, "boolean");
        break;
    case TT_FIELD_ARRAY:
        put_type(w, "array");
        tt_json_open_member(w, "items", '{');
        tt_json_close(w, '}');
        break;
    case TT_FIELD_OBJECT:
        put_type(w, "object");
        break;
    case TT_FIELD_TEXTS:
        put_texts_type(f, w);
        break;
    case TT_FIELD_PROMPT:
        put_prompt_type(w);
        break;
    case TT_FIELD_ANY:
        break;
    }
}

static void put_field(const tt_field *f, tt_json *w)
{
    tt_json_open_member(w, f->name, '{');
    put_field_type(f, w);
    tt_json_text_member(w, "description", f->help);
    if (f->use == TT_FIELD_NEUTRAL && !*f->neutral)
        put_type(w, "null");
    else if (f->use == TT_FIELD_NEUTRAL) {
        tt_json_open_member(w, "enum", '[');
        for (const char *v = f->neutral; *v;) {
            size_t n = strcspn(v, "|");
            char one[64] = "";
            strncat(one, v, n < sizeof one ? n : sizeof one - 1);
            tt_json_put_raw(w, one);
            v += n + (v[n] == '|');
        }
        tt_json_close(w, ']');
    }
    tt_json_close(w, '}');
}

/* --- schemas --- */

/* Members a body cannot be without. */
static const struct {
    unsigned on;
    const char *name;
} required[] = {
    {TT_ON_COMPLETIONS | TT_ON_CHAT | TT_ON_INFILL | TT_ON_FIM | TT_ON_READ, "model"},
    {TT_ON_COMPLETIONS | TT_ON_FIM, "prompt"},
    {TT_ON_CHAT, "messages"},
    {TT_ON_INFILL, "segments"},
    {TT_ON_DETOKENIZE | TT_ON_TOKEN_IMAGES, "tokens"},
    {TT_ON_EMBEDDINGS, "input"},
    {TT_ON_RERANK, "query"},
    {TT_ON_RERANK, "documents"},
    {TT_ON_SCORE, "text_1"},
    {TT_ON_SCORE, "text_2"},
};

static void put_body(unsigned on, tt_json *w)
{
    bool any = false;
    put_type(w, "object");
    for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
        if (!(required[i].on & on))
            continue;
        if (!any)
            tt_json_open_member(w, "required", '[');
        any = true;
        tt_json_put_text(w, required[i].name);
    }
    if (any)
        tt_json_close(w, ']');
    tt_json_open_member(w, "properties", '{');
    for (const tt_field *f = tt_fields(); f->name; f++)
        if (f->on & on)
            put_field(f, w);
    tt_json_close(w, '}');
    tt_json_bool_member(w, "additionalProperties", false);
}

static void put_param(const tt_param *p, tt_json *w)
{
    tt_json_open_member(w, p->name, '{');
    switch (p->type) {
    case TT_PARAM_BOOL:
        put_type(w, "boolean");
        break;
    case TT_PARAM_CHOICE:
        put_type(w, "string");
        tt_json_open_member(w, "enum", '[');
        for (int i = 0; p->choices[i]; i++)
            tt_json_put_text(w, p->choices[i]);
        tt_json_close(w, ']');
        break;
    case TT_PARAM_INT:
        put_number_type("integer", p->min, p->max, w);
        break;
    case TT_PARAM_FLOAT:
        put_number_type("number", p->min, p->max, w);
        break;
    }
    tt_json_text_member(w, "description", p->help);
    tt_json_close(w, '}');
}

/* Whether a sampler of what these endpoints make reads the parameter. */
static bool is_read(const tt_param *p, unsigned on)
{
    for (const tt_sampler *const *s = tt_sampler_all(); on & TT_ON_GENERATE && *s; s++)
        if (tt_sampler_reads(*s, p))
            return true;
    for (const tt_planner *const *q = tt_planner_all(); on & TT_ON_MAKE && *q; q++)
        if (tt_planner_reads(*q, p))
            return true;
    return false;
}

static void put_extension(const char *name, unsigned on, const char *description, tt_json *w)
{
    size_t n;
    const tt_param *all = tt_param_all(&n);
    tt_json_open_member(w, name, '{');
    put_type(w, "object");
    tt_json_text_member(w, "description", description);
    tt_json_open_member(w, "properties", '{');
    for (const tt_field *f = tt_extension_fields(); f->name; f++)
        if (f->on & on)
            put_field(f, w);
    for (size_t i = 0; i < n; i++)
        if (is_read(&all[i], on))
            put_param(&all[i], w);
    tt_json_close(w, '}');
    tt_json_bool_member(w, "additionalProperties", false);
    tt_json_close(w, '}');
}

static void put_search(tt_json *w)
{
    tt_json_open_member(w, "TuttiSearch", '{');
    put_type(w, "object");
    tt_json_text_member(w, "description",
                        "Test-time search: spend passes on many candidates. The answer's images "
                        "come best first with their scores; streams tell every step of it.");
    tt_json_open_member(w, "required", '[');
    tt_json_put_text(w, "verifier");
    tt_json_close(w, ']');
    tt_json_open_member(w, "properties", '{');
    for (const tt_field *f = tt_search_fields(); f->name; f++)
        put_field(f, w);
    tt_json_close(w, '}');
    tt_json_bool_member(w, "additionalProperties", false);
    tt_json_close(w, '}');
}

/* Schemas whose shape no table of ours holds; ' stands for ". */
static const char fixed_schemas[] =
    "'Message':{'type':'object','required':['role','content'],'properties':{"
    "'role':{'type':'string','enum':['system','developer','user','assistant']},"
    "'content':{'anyOf':[{'type':'string'},{'type':'array','items':{'type':'object',"
    "'required':['type','text'],'properties':{'type':{'const':'text'},"
    "'text':{'type':'string'}}}}]},'name':{'type':'string'}}},"
    "'Segment':{'anyOf':[{'type':'object','required':['text'],'properties':{"
    "'text':{'type':'string'}},'additionalProperties':false},"
    "{'type':'object','required':['hole'],'properties':{'hole':{'type':'object','properties':{"
    "'id':{'type':'string','description':'key of the answer; its number when absent'},"
    "'max':{'type':'integer','minimum':1,'description':'tokens to fill; also called tokens'},"
    "'tokens':{'type':'integer','minimum':1},"
    "'min':{'type':'integer','minimum':0,'description':'fewest tokens, max when absent. With text "
    "behind the hole the length is chosen under which that text is likeliest; at the end of the "
    "text the hole ends where the model ends it. Holes of insertion models grow: from min, which "
    "is 0 when absent, to max, or to exactly tokens'},"
    "'choices':{'type':'array','items':{'type':'string'},'minItems':1,'maxItems':256,"
    "'description':'texts of which the likeliest is taken; instead of a length'},"
    "'prediction':{'type':'string','description':'text the hole is expected to become: where a "
    "step would choose its token, that token is taken at once'},"
    "'regex':{'type':'string','description':'what the text matches, as tutti.regex'},"
    "'json_schema':{'type':'object','description':'the text is JSON of this schema'},"
    "'force':{'$ref':'#/components/schemas/Positions'},"
    "'ban':{'$ref':'#/components/schemas/Positions'},"
    "'allow':{'$ref':'#/components/schemas/Positions'}},"
    "'additionalProperties':false}},'additionalProperties':false}]},"
    "'Positions':{'type':'object','description':'by position, counted from 0: a token id, a text "
    "that is one token, or (ban, allow) a list of them','additionalProperties':{'anyOf':["
    "{'type':'integer'},{'type':'string'},"
    "{'type':'array','items':{'type':['integer','string']}}]}},"
    "'Error':{'type':'object','required':['error'],'properties':{'error':{'type':'object',"
    "'required':['message','type','param','code'],'properties':{'message':{'type':'string'},"
    "'type':{'type':'string'},'param':{'type':['string','null'],"
    "'description':'the field at fault, as a JSON path'},'code':{'type':['string','null']}}}}}";

static void put_fixed_schemas(tt_json *w)
{
    tt_buf_putc(w->out, ',');
    for (const char *p = fixed_schemas; *p; p++)
        tt_buf_putc(w->out, *p == '\'' ? '"' : *p);
}

static void put_schemas(const tt_api *api, tt_json *w)
{
    tt_json_open_member(w, "components", '{');
    if (api->keys_needed) {
        tt_json_key(w, "securitySchemes");
        tt_json_put_raw(w, "{\"key\":{\"type\":\"http\",\"scheme\":\"bearer\"}}");
    }
    tt_json_open_member(w, "schemas", '{');
    for (const tt_route *r = tt_routes(); r->method; r++) {
        if (!r->fields)
            continue;
        char name[48] = "Body";
        for (const char *p = r->path; *p && strlen(name) < sizeof name - 1; p++)
            if (*p != '/')
                strncat(name, p, 1);
        tt_json_open_member(w, name, '{');
        put_body(r->fields, w);
        tt_json_close(w, '}');
    }
    put_extension("TuttiOptions", TT_ON_GENERATE,
                  "How to sample and stream. A sampling parameter that the chosen sampler does not "
                  "read is refused; GET /v1/models lists which one reads what.", w);
    put_search(w);
    put_extension("TuttiReadOptions", TT_ON_READ, "How to score and encode.", w);
    put_extension("TuttiImageOptions", TT_ON_PICTURES,
                  "What images show and how they are made. In forms: fields such as tutti[steps].",
                  w);
    put_fixed_schemas(w);
    tt_json_close(w, '}');
    tt_json_close(w, '}');
}

/* --- paths --- */

/* In lower case, as the document has it. */
static const char *method_of(const tt_route *r)
{
    return !strcmp(r->method, "GET") ? "get" : !strcmp(r->method, "DELETE") ? "delete" : "post";
}

static void put_operation_id(const tt_route *r, tt_json *w)
{
    char id[80] = "";
    strncat(id, method_of(r), 8);
    for (const char *p = r->path; *p && strlen(id) < sizeof id - 1; p++)
        if (*p == '/' || *p == '.')
            strcat(id, "_");
        else if (*p != '{' && *p != '}')
            strncat(id, p, 1);
    tt_json_text_member(w, "operationId", id);
}

static void put_body_type(const char *type, const char *schema, tt_json *w)
{
    tt_json_open_member(w, type, '{');
    tt_json_open_member(w, "schema", '{');
    tt_json_text_member(w, "$ref", schema);
    tt_json_close(w, '}');
    tt_json_close(w, '}');
}

static void put_request_body(const tt_route *r, tt_json *w)
{
    char path[96] = "#/components/schemas/Body";
    for (const char *p = r->path; *p && strlen(path) < sizeof path - 1; p++)
        if (*p != '/')
            strncat(path, p, 1);
    tt_json_open_member(w, "requestBody", '{');
    tt_json_bool_member(w, "required", true);
    tt_json_open_member(w, "content", '{');
    put_body_type("application/json", path, w);
    if (r->flags & TT_ROUTE_FORM)
        put_body_type("multipart/form-data", path, w);
    tt_json_close(w, '}');
    tt_json_close(w, '}');
}

static void put_content(const char *type, tt_json *w)
{
    tt_json_open_member(w, type, '{');
    tt_json_open_member(w, "schema", '{');
    put_type(w, strcmp(type, "application/json") ? "string" : "object");
    tt_json_close(w, '}');
    tt_json_close(w, '}');
}

static void put_responses(const tt_route *r, tt_json *w)
{
    bool streams = r->endpoint ? !(r->fields & TT_ON_READ)
                               : r->fields & (TT_ON_MAKE | TT_ON_IMAGE_TOKENS);
    tt_json_open_member(w, "responses", '{');
    tt_json_open_member(w, "200", '{');
    tt_json_text_member(w, "description",
                        streams ? "the answer; server-sent events when 'stream' is true"
                                : "the answer");
    tt_json_open_member(w, "content", '{');
    put_content(r->flags & TT_ROUTE_METRICS ? "text/plain" : "application/json", w);
    if (streams && r->fields != TT_ON_LLAMA)
        put_content("text/event-stream", w);
    tt_json_close(w, '}');
    tt_json_close(w, '}');
    if (r->image) {
        tt_json_open_member(w, "202", '{');
        tt_json_text_member(w, "description", "with tutti.async: a job, see /v1/jobs/{id}");
        tt_json_open_member(w, "content", '{');
        put_content("application/json", w);
        tt_json_close(w, '}');
        tt_json_close(w, '}');
    }
    tt_json_open_member(w, "4XX", '{');
    tt_json_text_member(w, "description",
                        "the request cannot be answered; 'param' names the field");
    tt_json_open_member(w, "content", '{');
    tt_json_open_member(w, "application/json", '{');
    tt_json_open_member(w, "schema", '{');
    tt_json_text_member(w, "$ref", "#/components/schemas/Error");
    for (int i = 0; i < 5; i++)
        tt_json_close(w, '}');
}

static void put_operation(const tt_api *api, const tt_route *r, tt_json *w)
{
    bool open = r->flags & TT_ROUTE_OPEN;
    tt_json_open_member(w, method_of(r), '{');
    put_operation_id(r, w);
    tt_json_text_member(w, "summary", r->summary);
    tt_json_open_member(w, "tags", '[');
    tt_json_put_text(w, r->tag);
    tt_json_close(w, ']');
    tt_json_key(w, "security");
    tt_json_put_raw(w, api->keys_needed && !open ? "[{\"key\":[]}]" : "[]");
    if (strstr(r->path, "{id}")) {
        tt_json_key(w, "parameters");
        tt_json_put_raw(w, "[{\"name\":\"id\",\"in\":\"path\",\"required\":true,\"description\":"
                           "\"may hold slashes\",\"schema\":{\"type\":\"string\"}}]");
    }
    if (r->fields)
        put_request_body(r, w);
    put_responses(r, w);
    tt_json_close(w, '}');
}

/* A path with all its methods, where the first of them stands in the table. */
static void put_path(const tt_api *api, const tt_route *r, tt_json *w)
{
    for (const tt_route *p = tt_routes(); p < r; p++)
        if (!strcmp(p->path, r->path))
            return;
    tt_json_open_member(w, r->path, '{');
    for (const tt_route *p = r; p->method; p++)
        if (!strcmp(p->path, r->path))
            put_operation(api, p, w);
    tt_json_close(w, '}');
}

void tt_api_openapi(const tt_call *c, tt_reply *r)
{
    tt_json w = {.out = &r->body};
    tt_json_open(&w, '{');
    tt_json_text_member(&w, "openapi", "3.1.0");
    tt_json_open_member(&w, "info", '{');
    tt_json_text_member(&w, "title", "Tutti");
    tt_json_text_member(&w, "version", c->api->version);
    tt_json_text_member(&w, "summary", "Texts and images by models that write many places at once");
    tt_json_open_member(&w, "license", '{');
    tt_json_text_member(&w, "name", "Apache 2.0");
    tt_json_text_member(&w, "identifier", "Apache-2.0");
    tt_json_close(&w, '}');
    tt_json_close(&w, '}');
    tt_json_key(&w, "servers");
    tt_json_put_raw(&w, "[{\"url\":\"/\"}]");
    tt_json_open_member(&w, "paths", '{');
    for (const tt_route *p = tt_routes(); p->method; p++)
        put_path(c->api, p, &w);
    tt_json_close(&w, '}');
    put_schemas(c->api, &w);
    tt_json_close(&w, '}');
    r->status = 200;
}
