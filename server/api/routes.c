/* routes.c - every path the API answers. The web page's files are not here: see http/page.h. */
#include <string.h>

#include "server/api/api.h"
#include "server/api/fields.h"
#include "server/api/gen.h"
#include "server/api/images.h"

#define GENERATE(p, name, bit, text)                                                               \
    {.method = "POST", .path = p, .endpoint = &tt_endpoint_##name, .tag = "Generation",            \
     .summary = text, .fields = TT_ON_##bit}

#define READ(p, other, name, bit, text)                                                            \
    {.method = "POST", .path = p, .alias = other, .endpoint = &tt_endpoint_##name,                 \
     .tag = "Measuring", .summary = text, .fields = TT_ON_##bit}

#define IMAGE(p, name, bit, how, text)                                                             \
    {.method = "POST", .path = p, .flags = how, .image = &tt_image_##name, .tag = "Images",        \
     .summary = text, .fields = TT_ON_##bit}
#define PICTURES (TT_ROUTE_FORM | TT_ROUTE_UPLOAD)

static const tt_route routes[] = {
    GENERATE("/v1/chat/completions", chat, CHAT, "Answer a conversation"),
    GENERATE("/v1/completions", completions, COMPLETIONS,
             "Complete a prompt, or fill the gap between prompt and suffix"),
    GENERATE("/v1/infill", infill, INFILL, "Fill holes anywhere in a text"),
    GENERATE("/v1/fim/completions", fim, FIM,
             "Fill in the middle, in the shape code editors use"),
    GENERATE("/infill", llama_infill, LLAMA, "Fill in the middle, in llama-server's shape"),

    READ("/v1/likelihood", NULL, likelihood, LIKELIHOOD,
         "Log-probability of texts, or which continuation fits"),
    READ("/v1/embeddings", NULL, embeddings, EMBEDDINGS, "Vectors of texts"),
    READ("/v1/rerank", "/rerank", rerank, RERANK, "Order documents by their likeness to a query"),
    READ("/v1/score", "/score", score, SCORE, "Likeness of pairs of texts"),

    IMAGE("/v1/images/generations", generations, IMAGES, 0, "Make images"),
    IMAGE("/v1/images/edits", edits, EDITS, PICTURES, "Make a part of an image anew"),
    IMAGE("/v1/images/variations", variations, VARIATIONS, PICTURES,
          "Make a share of an image's tokens anew"),
    IMAGE("/v1/images/tokenize", tokenize, IMAGE_TOKENS, PICTURES, "Images to token ids"),
    IMAGE("/v1/images/detokenize", detokenize, TOKEN_IMAGES, 0, "Token ids to images"),
    {.method = "GET", .path = "/v1/images/labels", .answer = tt_api_image_labels, .tag = "Images",
     .summary = "What image models know by name"},

    {.method = "GET", .path = "/v1/jobs", .answer = tt_api_jobs, .tag = "Jobs",
     .summary = "Requests made with tutti.async by this key"},
    {.method = "GET", .path = "/v1/jobs/{id}", .answer = tt_api_job, .tag = "Jobs",
     .summary = "How far a job is, or its answer"},
    {.method = "DELETE", .path = "/v1/jobs/{id}", .answer = tt_api_job_delete, .tag = "Jobs",
     .summary = "Forget a job, cancelling it if it runs"},
    {.method = "POST", .path = "/v1/jobs/{id}/cancel", .answer = tt_api_job_cancel, .tag = "Jobs",
     .summary = "Cancel a job"},

    {.method = "GET", .path = "/v1/models", .answer = tt_api_models, .tag = "Models",
     .summary = "List the models, their samplers and default parameters"},
    {.method = "GET", .path = "/v1/models/{id}", .answer = tt_api_model, .tag = "Models",
     .summary = "One model"},
    {.method = "POST", .path = "/v1/tokenize", .alias = "/tokenize", .answer = tt_api_tokenize,
     .tag = "Tokens", .summary = "Text or messages to token ids", .fields = TT_ON_TOKENIZE},
    {.method = "POST", .path = "/v1/detokenize", .alias = "/detokenize",
     .answer = tt_api_detokenize, .tag = "Tokens", .summary = "Token ids to text",
     .fields = TT_ON_DETOKENIZE},

    {.method = "GET", .path = "/health", .alias = "/v1/health", .flags = TT_ROUTE_OPEN,
     .answer = tt_api_health, .tag = "Server", .summary = "200 when requests can be answered"},
    {.method = "GET", .path = "/v1/health/live", .flags = TT_ROUTE_OPEN, .answer = tt_api_live,
     .tag = "Server", .summary = "200 as soon as the process serves"},
    {.method = "GET", .path = "/v1/health/ready", .flags = TT_ROUTE_OPEN, .answer = tt_api_ready,
     .tag = "Server", .summary = "200 when a model is loaded and the server is not draining"},
    {.method = "GET", .path = "/metrics", .alias = "/v1/metrics", .flags = TT_ROUTE_METRICS,
     .answer = tt_api_metrics, .tag = "Server", .summary = "Counters for Prometheus"},
    {.method = "GET", .path = "/version", .alias = "/v1/version", .answer = tt_api_version,
     .tag = "Server", .summary = "Version and device"},
    {.method = "GET", .path = "/openapi.json", .flags = TT_ROUTE_OPEN, .answer = tt_api_openapi,
     .tag = "Server", .summary = "This document"},
    {.method = NULL},
};

const tt_route *tt_routes(void) { return routes; }

/* Whether path is the pattern; what stands for {id}, and all behind it, begins at *tail. An id at
 * the end of a pattern may hold slashes. */
static bool matches(const char *pattern, const char *path, const char **tail)
{
    if (!pattern)
        return false;
    const char *hole = strstr(pattern, "{id}");
    if (!hole)
        return !strcmp(pattern, path);
    size_t n = (size_t)(hole - pattern);
    if (strncmp(pattern, path, n) || !path[n])
        return false;
    const char *slash = strchr(path + n, '/');
    if (hole[4] && (!slash || slash == path + n || strcmp(slash, hole + 4)))
        return false;
    *tail = path + n;
    return true;
}

const tt_route *tt_route_find(const char *method, const char *path, const char **tail,
                              char allow[64])
{
    allow[0] = '\0';
    *tail = "";
    for (const tt_route *r = routes; r->method; r++) {
        if (!matches(r->path, path, tail) && !matches(r->alias, path, tail))
            continue;
        bool head = !strcmp(method, "HEAD") && !strcmp(r->method, "GET");
        if (head || !strcmp(r->method, method))
            return r;
        if (*allow)
            strncat(allow, ", ", 63 - strlen(allow));
        strncat(allow, r->method, 63 - strlen(allow));
    }
    return NULL;
}
