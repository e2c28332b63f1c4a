/* Any bytes as a regular expression, and as a JSON schema that becomes one. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "server/api/constrain.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *piece(const void *arg, int32_t id, size_t *n)
{
    static const char text[] = "ab1{\"}, \xC3\xA9";
    (void)arg;
    *n = 1 + (size_t)id % 3;
    return text + id % 8;
}

static void compile(const char *regex, size_t bytes)
{
    const tt_alphabet a = {.vocab = 24, .piece = piece};
    tt_grammar *g;
    tt_err e;
    if (tt_grammar_open(&g, regex, bytes, &a, &e))
        return;
    tt_grammar_fits(g, 5, true);
    tt_grammar_close(g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cJSON *schema;
    tt_err e;
    if (size > 2000)
        return 0;
    compile((const char *)data, size);
    if (tt_json_parse(&schema, (const char *)data, size, &e))
        return 0;
    tt_buf regex = {0};
    if (!tt_schema_regex(schema, "schema", &regex, &e))
        compile(tt_buf_text(&regex), regex.size);
    tt_buf_free(&regex);
    cJSON_Delete(schema);
    return 0;
}
