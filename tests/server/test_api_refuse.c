/* What can go wrong: a request that cannot be answered as asked must be refused, with the status,
 * the code and the field that is at fault - never changed in silence. */
#include "tests/server/api_help.h"

typedef struct {
    const char *path, *body, *code, *param; /* param NULL: null in the answer */
} bad;

#define CO "/v1/completions"
#define CH "/v1/chat/completions"
#define IN "/v1/infill"
#define M "\"model\":\"org/fake\","
#define P "\"prompt\":\"x\","
#define U "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],"

static int status_of(const char *code)
{
    return !strcmp(code, "model_not_found") ? 404 : 400;
}

static void refused(const bad *b)
{
    int status;
    cJSON *t = ask("POST", b->path, b->body, &status);
    const cJSON *param = at(t, "error.param");
    bool same = b->param ? cJSON_IsString(param) && !strcmp(param->valuestring, b->param)
                         : cJSON_IsNull(param);
    if (status != status_of(b->code) || strcmp(text_at(t, "error.code"), b->code) || !same) {
        char *text = cJSON_PrintUnformatted(t);
        fail_msg("%s %s\n  answers %d %s\n  expected %s, param %s", b->path, b->body, status, text,
                 b->code, b->param ? b->param : "null");
    }
    assert_string_equal(text_at(t, "error.type"), "invalid_request_error");
    assert_true(*text_at(t, "error.message"));
    cJSON_Delete(t);
}

#define REFUSED(list)                                                                              \
    do {                                                                                           \
        int before = tt_fake_engine.jobs;                                                          \
        for (size_t i = 0; i < sizeof list / sizeof *list; i++)                                    \
            refused(&list[i]);                                                                     \
        assert_int_equal(tt_fake_engine.jobs, before); /* nothing reached the engine */            \
    } while (0)

static void broken_bodies(void **state)
{
    (void)state;
    static const bad list[] = {
        {CO, "", "invalid_json", NULL},
        {CO, "[]", "invalid_json", NULL},
        {CO, "\"x\"", "invalid_json", NULL},
        {CO, "{" M P "}", "invalid_json", NULL},
        {CO, "{" M P "\"n\":1} {}", "invalid_json", NULL},
        {CO, "{" M P "\"n\":1,\"n\":2}", "invalid_json", "n"},
        {CH, "{\"messages\":[{\"role\":\"user\",\"role\":\"user\",\"content\":\"x\"}]}",
         "invalid_json", "role"},
        {CO, "{" M "\"prompt\":\"\\u0000\"}", "invalid_json", NULL},
        {CO, "{" M P "\"temperature\":1e400}", "invalid_json", NULL},
    };
    REFUSED(list);
}

static void models_and_required_members(void **state)
{
    (void)state;
    static const bad list[] = {
        {CO, "{\"prompt\":\"x\"}", "missing_required_parameter", "model"},
        {CO, "{\"model\":null,\"prompt\":\"x\"}", "missing_required_parameter", "model"},
        {CO, "{\"model\":7,\"prompt\":\"x\"}", "invalid_value", "model"},
        {CO, "{\"model\":\"nope\",\"prompt\":\"x\"}", "model_not_found", "model"},
        {CO, "{\"model\":\"ORG/FAKE\",\"prompt\":\"x\"}", "model_not_found", "model"},
        {CO, "{\"model\":\"org/fake\"}", "missing_required_parameter", "prompt"},
        {CO, "{\"model\":\"no-tok\",\"prompt\":\"x\"}", "unsupported_value", "prompt"},
        {CO, "{\"model\":\"no-tok\",\"prompt\":[1],\"stop\":\"x\"}", "unsupported_parameter",
         "stop"},
        {CH, "{\"model\":\"org/fake\"}", "missing_required_parameter", "messages"},
        {CH, "{" M "\"messages\":[]}", "missing_required_parameter", "messages"},
        {CH, "{\"model\":\"no-chat\"," U "\"n\":1}", "unsupported_value", "model"},
        {IN, "{\"model\":\"org/fake\"}", "missing_required_parameter", "segments"},
    };
    REFUSED(list);
}

static void unknown_and_unsupported_members(void **state)
{
    (void)state;
    static const bad list[] = {
        {CO, "{" M P "\"max_token\":5}", "unknown_parameter", "max_token"},
        {CO, "{" M P "\"Seed\":5}", "unknown_parameter", "Seed"},
        {CO, "{" M P "\"messages\":[]}", "unknown_parameter", "messages"},
        {CO, "{" M P "\"tutti\":{\"step\":5}}", "unknown_parameter", "tutti.step"},
        {CO, "{" M P "\"tutti\":{\"seed\":5}}", "unknown_parameter", "tutti.seed"},
        {CO, "{" M P "\"tutti\":[]}", "invalid_value", "tutti"},
        {CO, "{" M P "\"best_of\":2,\"stream\":true}", "unsupported_parameter", "best_of"},
        {CO, "{" M P "\"best_of\":2,\"n\":3}", "invalid_value", "best_of"},
        {CO, "{" M P "\"best_of\":0}", "invalid_value", "best_of"},
        {CO, "{" M P "\"best_of\":129}", "invalid_value", "best_of"},
        {CH, "{" M U "\"best_of\":2}", "unknown_parameter", "best_of"},
        {CO, "{" M P "\"presence_penalty\":0.5}", "unsupported_parameter", "presence_penalty"},
        {CO, "{" M P "\"frequency_penalty\":-1}", "unsupported_parameter", "frequency_penalty"},
        {CO, "{" M P "\"negative_prompt\":\"no\"}", "invalid_value", "negative_prompt"},
        {CO, "{" M P "\"response_format\":{}}", "missing_required_parameter",
         "response_format.type"},
        {CO, "{" M P "\"response_format\":{\"type\":\"grammar\"}}", "unsupported_value",
         "response_format.type"},
        {CO, "{" M P "\"max_tokens\":1,\"response_format\":{\"type\":\"json_object\"}}",
         "constraint_unsatisfiable", "response_format"},
        {CO, "{" M P "\"tutti\":{\"regex\":\"a(\"}}", "invalid_value", "tutti.regex"},
        {CO, "{" M P "\"guided_regex\":\"[\"}", "invalid_value", "guided_regex"},
        {CO, "{" M P "\"guided_json\":{\"type\":\"x\"}}", "unsupported_value", "guided_json.type"},
        {CO, "{" M P "\"json_schema\":{\"contains\":{}}}", "unsupported_value",
         "json_schema.contains"},
        {CO, "{" M P "\"tutti\":{\"regex\":\"a\",\"json_schema\":{}}}", "invalid_value",
         "tutti.json_schema"},
        {CO, "{" M P "\"tutti\":{\"regex\":\"a\"},\"response_format\":{\"type\":"
         "\"json_object\"}}", "invalid_value", "tutti.regex"},
        {CO, "{" M P "\"min_tokens\":2,\"tutti\":{\"regex\":\"a+\"}}", "unsupported_parameter",
         "min_tokens"},
        {CO, "{" M P "\"tutti\":{\"regex\":\"a+\",\"ban\":{\"0\":97}}}", "unsupported_parameter",
         "tutti.ban"},
        {CO, "{" M P "\"logit_bias\":{\"97\":-100},\"tutti\":{\"regex\":\"a+\"}}",
         "constraint_unsatisfiable", "tutti.regex"},
        {CH, "{" M U "\"tools\":[{\"type\":\"function\"}]}", "unsupported_parameter", "tools"},
        {CH, "{" M U "\"tool_choice\":\"required\"}", "unsupported_parameter", "tool_choice"},
        {CH, "{" M U "\"response_format\":{\"type\":\"json_schema\"}}",
         "missing_required_parameter", "response_format.json_schema"},
        {CH, "{" M U "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":"
         "\"x\"}}}", "missing_required_parameter", "response_format.json_schema.schema"},
        {CH, "{" M U "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":"
         "{\"type\":\"object\",\"properties\":{\"a\":{\"pattern\":\"x\"}}}}}}", "unsupported_value",
         "response_format.json_schema.schema.properties.a.pattern"},
        {CH, "{" M U "\"prediction\":{\"type\":\"diff\",\"content\":\"x\"}}", "unsupported_value",
         "prediction.type"},
        {CH, "{" M U "\"prediction\":{\"type\":\"content\"}}", "missing_required_parameter",
         "prediction.content"},
        {CH, "{" M U "\"prediction\":{\"content\":\"x\",\"tokens\":1}}", "unknown_parameter",
         "prediction.tokens"},
        {CH, "{" M U "\"prediction\":\"x\"}", "invalid_value", "prediction"},
        {"/v1/infill", "{" M "\"segments\":[{\"hole\":{\"max\":2,\"prediction\":3}}]}",
         "invalid_value", "segments[0].hole.prediction"},
        {"/v1/embeddings", "{" M "\"input\":\"x\",\"tutti\":{\"wording\":{}}}", "invalid_value",
         "tutti.wording"},
        {"/v1/embeddings", "{" M "\"input\":\"x\",\"tutti\":{\"k\":1,\"wording\":"
         "{\"query\":\"none\"}}}", "invalid_value", "tutti.wording.query"},
        {"/v1/embeddings", "{" M "\"input\":\"x\",\"tutti\":{\"k\":1,\"wording\":"
         "{\"end\":\"x\"}}}", "unknown_parameter", "tutti.wording.end"},
        {CH, "{" M U "\"modalities\":[\"text\",\"audio\"]}", "unsupported_parameter",
         "modalities"},
        {CH, "{" M U "\"tutti\":{\"special_tokens\":true}}", "unsupported_parameter",
         "tutti.special_tokens"},
        {CH, "{" M U "\"suffix\":\"x\"}", "unknown_parameter", "suffix"},
    };
    REFUSED(list);
}

static void types_and_ranges(void **state)
{
    (void)state;
    static const bad list[] = {
        {CO, "{" M P "\"max_tokens\":0}", "invalid_value", "max_tokens"},
        {CO, "{" M P "\"max_tokens\":-1}", "invalid_value", "max_tokens"},
        {CO, "{" M P "\"max_tokens\":1.5}", "invalid_value", "max_tokens"},
        {CO, "{" M P "\"max_tokens\":\"5\"}", "invalid_value", "max_tokens"},
        {CO, "{" M P "\"max_tokens\":1e99}", "invalid_value", "max_tokens"},
        {CO, "{" M P "\"n\":0}", "invalid_value", "n"},
        {CO, "{" M P "\"n\":17}", "invalid_value", "n"}, /* the server's limit, 16 here */
        {CO, "{" M P "\"n\":129}", "invalid_value", "n"},
        {CO, "{" M P "\"temperature\":-0.1}", "invalid_value", "temperature"},
        {CO, "{" M P "\"temperature\":\"hot\"}", "invalid_value", "temperature"},
        {CO, "{" M P "\"top_p\":1.1}", "invalid_value", "top_p"},
        {CO, "{" M P "\"seed\":9007199254740994}", "invalid_value", "seed"},
        {CO, "{" M P "\"seed\":0.5}", "invalid_value", "seed"},
        {CO, "{" M P "\"logprobs\":6}", "invalid_value", "logprobs"},
        {CO, "{" M P "\"logprobs\":true}", "invalid_value", "logprobs"},
        {CH, "{" M U "\"logprobs\":1}", "invalid_value", "logprobs"},
        {CH, "{" M U "\"logprobs\":true,\"top_logprobs\":21}", "invalid_value", "top_logprobs"},
        {CH, "{" M U "\"top_logprobs\":2}", "invalid_value", "top_logprobs"},
        {CO, "{" M P "\"echo\":1}", "invalid_value", "echo"},
        {CO, "{" M P "\"stream\":\"yes\"}", "invalid_value", "stream"},
        {CO, "{" M P "\"stream_options\":{\"include_usage\":true}}", "invalid_value",
         "stream_options"},
        {CO, "{" M P "\"stream\":true,\"stream_options\":{\"x\":1}}", "unknown_parameter",
         "stream_options.x"},
        {CO, "{" M P "\"stream\":true,\"stream_options\":{\"include_usage\":1}}", "invalid_value",
         "stream_options.include_usage"},
        {CO, "{" M P "\"stop\":\"\"}", "invalid_value", "stop"},
        {CO, "{" M P "\"stop\":[\"a\",\"\"]}", "invalid_value", "stop[1]"},
        {CO, "{" M P "\"stop\":[\"a\",2]}", "invalid_value", "stop[1]"},
        {CO, "{" M P "\"stop\":[\"a\",\"b\",\"c\",\"d\",\"e\"]}", "invalid_value", "stop"},
        {CO, "{" M P "\"logit_bias\":{\"x\":1}}", "invalid_value", "logit_bias.x"},
        {CO, "{" M P "\"logit_bias\":{\"260\":1}}", "invalid_value", "logit_bias.260"},
        {CO, "{" M P "\"logit_bias\":{\"-1\":1}}", "invalid_value", "logit_bias.-1"},
        {CO, "{" M P "\"logit_bias\":{\"7\":101}}", "invalid_value", "logit_bias.7"},
        {CO, "{" M P "\"logit_bias\":{\"7\":1,\"07\":1}}", "invalid_value", "logit_bias"},
        {CO, "{" M P "\"suffix\":5}", "invalid_value", "suffix"},
    };
    REFUSED(list);
}

static void prompts_and_messages(void **state)
{
    (void)state;
    static const bad list[] = {
        {CO, "{" M "\"prompt\":5}", "invalid_value", "prompt"},
        {CO, "{" M "\"prompt\":[]}", "invalid_value", "prompt"},
        {CO, "{" M "\"prompt\":[true]}", "invalid_value", "prompt"},
        {CO, "{" M "\"prompt\":[\"a\",1]}", "invalid_value", "prompt[1]"},
        {CO, "{" M "\"prompt\":[1,\"a\"]}", "invalid_value", "prompt[1]"},
        {CO, "{" M "\"prompt\":[[1],2]}", "invalid_value", "prompt[1]"},
        {CO, "{" M "\"prompt\":[[1],[2,260]]}", "invalid_value", "prompt[1][1]"},
        {CO, "{" M "\"prompt\":[-1]}", "invalid_value", "prompt[0]"},
        {CO, "{" M "\"prompt\":[1.5]}", "invalid_value", "prompt[0]"},
        {CH, "{" M "\"messages\":{}}", "invalid_value", "messages"},
        {CH, "{" M "\"messages\":[1]}", "invalid_value", "messages[0]"},
        {CH, "{" M "\"messages\":[{\"content\":\"x\"}]}", "missing_required_parameter",
         "messages[0].role"},
        {CH, "{" M "\"messages\":[{\"role\":\"user\"}]}", "missing_required_parameter",
         "messages[0].content"},
        {CH, "{" M "\"messages\":[{\"role\":\"user\",\"content\":null}]}",
         "missing_required_parameter", "messages[0].content"},
        {CH, "{" M "\"messages\":[{\"role\":\"user\",\"content\":5}]}", "invalid_value",
         "messages[0].content"},
        {CH, "{" M "\"messages\":[{\"role\":\"robot\",\"content\":\"x\"}]}", "invalid_value",
         "messages[0].role"},
        {CH, "{" M "\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}", "unsupported_value",
         "messages[0].role"},
        {CH, "{" M "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
         "unsupported_value", "messages[0].content[0].type"},
        {CH, "{" M "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}",
         "missing_required_parameter", "messages[0].content[0].text"},
        {CH, "{" M "\"messages\":[{\"role\":\"user\",\"content\":[{\"text\":\"x\"}]}]}",
         "missing_required_parameter", "messages[0].content[0].type"},
        {CH, "{" M "\"messages\":[{\"role\":\"assistant\",\"content\":\"x\",\"tool_calls\":[]}]}",
         "unsupported_parameter", "messages[0].tool_calls"},
        {CH, "{" M "\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"mood\":1}]}",
         "unknown_parameter", "messages[0].mood"},
    };
    REFUSED(list);
}

static void holes(void **state)
{
    (void)state;
#define S(x) "{" M "\"segments\":[" x "]}"
#define H(x) S("{\"text\":\"a\"},{\"hole\":{" x "}}")
    static const bad list[] = {
        {IN, S(""), "missing_required_parameter", "segments"},
        {IN, S("{\"text\":\"a\"}"), "invalid_value", "segments"},
        {IN, S("5"), "invalid_value", "segments[0]"},
        {IN, S("{}"), "invalid_value", "segments[0]"},
        {IN, S("{\"text\":\"a\",\"hole\":{\"max\":1}}"), "invalid_value", "segments[0]"},
        {IN, S("{\"txt\":\"a\"}"), "unknown_parameter", "segments[0].txt"},
        {IN, S("{\"text\":5}"), "invalid_value", "segments[0].text"},
        {IN, S("{\"hole\":5}"), "invalid_value", "segments[0].hole"},
        {IN, H(""), "missing_required_parameter", "segments[1].hole.max"},
        {IN, H("\"max\":0"), "invalid_value", "segments[1].hole.max"},
        {IN, H("\"max\":4,\"tokens\":5"), "invalid_value", "segments[1].hole.tokens"},
        {IN, H("\"max\":4,\"min\":5"), "invalid_value", "segments[1].hole.min"},
        {IN, H("\"max\":4,\"min\":0"), "invalid_value", "segments[1].hole.min"},
        {IN, H("\"max\":300,\"min\":1"), "invalid_value", "segments[1].hole.min"},
        {IN, H("\"max\":4,\"choices\":[\"a\"]"), "invalid_value", "segments[1].hole.max"},
        {IN, H("\"choices\":[]"), "invalid_value", "segments[1].hole.choices"},
        {IN, H("\"choices\":\"a\""), "invalid_value", "segments[1].hole.choices"},
        {IN, H("\"choices\":[\"a\",5]"), "invalid_value", "segments[1].hole.choices[1]"},
        {IN, H("\"choices\":[\"a\",\"\"]"), "invalid_value", "segments[1].hole.choices[1]"},
        {IN, H("\"max\":4,\"force\":{\"4\":1}"), "invalid_value", "segments[1].hole.force.4"},
        {IN, H("\"max\":4,\"force\":{\"-1\":1}"), "invalid_value", "segments[1].hole.force.-1"},
        {IN, H("\"max\":4,\"force\":{\"0\":99999}"), "invalid_value", "segments[1].hole.force.0"},
        {IN, H("\"max\":4,\"force\":{\"0\":256}"), "invalid_value", "segments[1].hole.force.0"},
        {IN, H("\"max\":1,\"force\":{\"0\":\"a\"}"), "invalid_value", "segments[1].hole.force"},
        {IN, H("\"max\":4,\"force\":{\"0\":\"ab\"}"), "invalid_value", "segments[1].hole.force.0"},
        {IN, H("\"max\":4,\"ban\":{\"0\":[]}"), "invalid_value", "segments[1].hole.ban.0"},
        {IN, H("\"max\":4,\"ban\":{\"0\":[1,true]}"), "invalid_value", "segments[1].hole.ban.0[1]"},
        {IN, H("\"max\":4,\"allow\":[1]"), "invalid_value", "segments[1].hole.allow"},
        {IN, H("\"max\":4,\"regex\":\"a\""), "constraint_unsatisfiable",
         "segments[1].hole.regex"},
        {IN, H("\"max\":4,\"regex\":\"a*\",\"force\":{\"0\":97}"), "unsupported_parameter",
         "segments[1].hole.force"},
        {IN, H("\"max\":4,\"regex\":\"a*\",\"json_schema\":{}"), "invalid_value",
         "segments[1].hole.json_schema"},
        {IN, H("\"min\":2,\"max\":4,\"regex\":\"a*\""), "unsupported_parameter",
         "segments[1].hole.regex"},
        {IN, H("\"choices\":[\"a\"],\"regex\":\"a\""), "invalid_value", "segments[1].hole.regex"},
        {IN, H("\"max\":4,\"mx\":4"), "unknown_parameter", "segments[1].hole.mx"},
        {IN, H("\"max\":4,\"id\":5"), "invalid_value", "segments[1].hole.id"},
        {IN, S("{\"hole\":{\"max\":1,\"id\":\"a\"}},{\"hole\":{\"max\":1,\"id\":\"a\"}}"),
         "invalid_value", "segments[1].hole.id"},
        {IN, H("\"max\":600"), "context_length_exceeded", "segments[1].hole.max"},
        {IN, "{" M "\"segments\":[{\"hole\":{\"max\":1}}],\"stop\":\"x\"}", "unknown_parameter",
         "stop"},
    };
    REFUSED(list);
}

static void steering(void **state)
{
    (void)state;
    static const bad list[] = {
        {CO, "{" M P "\"min_tokens\":17}", "invalid_value", "min_tokens"},
        {CO, "{" M P "\"min_tokens\":-1}", "invalid_value", "min_tokens"},
        {CO, "{" M P "\"max_tokens\":400,\"suffix\":\"y\",\"min_tokens\":1}", "invalid_value",
         "min_tokens"},
        {CO, "{" M "\"prompt\":[\"x\",\"y\"],\"suffix\":\"y\",\"min_tokens\":1}",
         "unsupported_parameter", "min_tokens"},
        {CO, "{" M P "\"tutti\":{\"force\":{\"16\":1}}}", "invalid_value", "tutti.force.16"},
        {CO, "{" M P "\"tutti\":{\"ban\":{\"x\":1}}}", "invalid_value", "tutti.ban.x"},
        {CO, "{" M P "\"tutti\":{\"allow\":{\"0\":1.5}}}", "invalid_value", "tutti.allow.0"},
        {CO, "{" M P "\"tutti\":{\"shrink\":1}}", "invalid_value", "tutti.shrink"},
        {CO, "{" M P "\"tutti\":{\"negative_prompt\":5}}", "invalid_value",
         "tutti.negative_prompt"},
        {CO, "{" M P "\"negative_prompt\":\"a\",\"tutti\":{\"negative_prompt\":\"b\","
             "\"cfg_scale\":1}}", "invalid_value", "negative_prompt"},
    };
    REFUSED(list);
}

#define LK "/v1/likelihood"
#define EM "/v1/embeddings"
#define RR "/v1/rerank"
#define SC "/v1/score"

static void texts_to_score(void **state)
{
    (void)state;
    static const bad list[] = {
        {LK, "{\"text\":\"x\"}", "missing_required_parameter", "model"},
        {LK, "{" M "\"samples\":4}", "missing_required_parameter", "text"},
        {LK, "{" M "\"text\":\"x\",\"continuation\":\"y\"}", "invalid_value", "text"},
        {LK, "{" M "\"continuation\":\"y\",\"choices\":[\"a\"]}", "invalid_value",
         "continuation"},
        {LK, "{" M "\"text\":\"x\",\"prompt\":\"y\"}", "invalid_value", "prompt"},
        {LK, "{" M "\"text\":\"\"}", "invalid_value", "text"},
        {LK, "{" M "\"text\":[]}", "invalid_value", "text"},
        {LK, "{" M "\"text\":[\"a\",5]}", "invalid_value", "text[1]"},
        {LK, "{" M "\"text\":[1,-1]}", "invalid_value", "text[1]"},
        {LK, "{" M "\"text\":[1,256]}", "invalid_value", "text"},
        {LK, "{" M "\"text\":5}", "invalid_value", "text"},
        {LK, "{" M "\"choices\":[]}", "invalid_value", "choices"},
        {LK, "{" M "\"choices\":[\"a\",null]}", "invalid_value", "choices[1]"},
        {LK, "{" M "\"continuation\":\"y\",\"prompt\":{}}", "invalid_value", "prompt"},
        {LK, "{" M "\"text\":\"x\",\"samples\":0}", "invalid_value", "samples"},
        {LK, "{" M "\"text\":\"x\",\"samples\":1e9}", "invalid_value", "samples"},
        {LK, "{" M "\"text\":\"x\",\"method\":\"magic\"}", "invalid_value", "method"},
        {LK, "{" M "\"text\":\"x\",\"method\":\"exact\"}", "unsupported_value", "method"},
        {LK, "{" M "\"text\":\"x\",\"method\":\"left_to_right\",\"samples\":2}",
         "unsupported_parameter", "samples"},
        {LK, "{" M "\"text\":\"x\",\"stream\":true}", "unknown_parameter", "stream"},
        {LK, "{" M "\"text\":\"x\",\"tutti\":{\"steps\":1}}", "unknown_parameter",
         "tutti.steps"},
        {LK, "{\"model\":\"no-tok\",\"text\":\"x\"}", "unsupported_value", "text"},
    };
    REFUSED(list);
}

/* No request may make the server keep more than it has room for. */
static void texts_to_score_are_limited(void **state)
{
    (void)state;
    tt_buf b = {0};
    tt_buf_puts(&b, "{" M "\"samples\":1024,\"text\":[");
    for (int i = 0; i < 40; i++) {
        tt_buf_puts(&b, i ? ",\"" : "\"");
        for (int k = 0; k < 500; k++)
            tt_buf_putc(&b, 'a');
        tt_buf_puts(&b, "\"");
    }
    tt_buf_puts(&b, "]}");
    const bad much = {LK, tt_buf_text(&b), "invalid_value", "text[32]"};
    refused(&much);
    tt_buf_free(&b);
}

static void texts_to_encode(void **state)
{
    (void)state;
    static const bad list[] = {
        {EM, "{" M "\"dimensions\":2}", "missing_required_parameter", "input"},
        {EM, "{" M "\"input\":\"\"}", "invalid_value", "input"},
        {EM, "{" M "\"input\":[]}", "invalid_value", "input"},
        {EM, "{" M "\"input\":[\"a\",5]}", "invalid_value", "input[1]"},
        {EM, "{" M "\"input\":[[1],[]]}", "invalid_value", "input[1]"},
        {EM, "{" M "\"input\":[1,99999]}", "invalid_value", "input[1]"},
        {EM, "{" M "\"input\":{}}", "invalid_value", "input"},
        {EM, "{" M "\"input\":\"a\",\"encoding_format\":\"hex\"}", "invalid_value",
         "encoding_format"},
        {EM, "{" M "\"input\":\"a\",\"dimensions\":0}", "invalid_value", "dimensions"},
        {EM, "{" M "\"input\":\"a\",\"dimensions\":5}", "invalid_value", "dimensions"},
        {EM, "{" M "\"input\":\"a\",\"tutti\":{\"pooling\":\"max\"}}", "invalid_value",
         "tutti.pooling"},
        {EM, "{" M "\"input\":\"a\",\"tutti\":{\"k\":33}}", "invalid_value", "tutti.k"},
        {EM, "{" M "\"input\":\"a\",\"tutti\":{\"k\":2,\"pooling\":\"mean\"}}", "invalid_value",
         "tutti.pooling"},
        {EM, "{" M "\"input\":[1],\"tutti\":{\"k\":2}}", "unsupported_value", "input"},
        {EM, "{" M "\"input\":\"a\",\"tutti\":{\"outputs\":\"dense\"}}", "invalid_value",
         "tutti.outputs"},
        {EM, "{" M "\"input\":\"a\",\"tutti\":{\"k\":1,\"outputs\":[\"dense\",\"x\"]}}",
         "invalid_value", "tutti.outputs[1]"},
        {EM, "{" M "\"input\":\"a\",\"tutti\":{\"k\":1,\"kind\":\"x\"}}", "invalid_value",
         "tutti.kind"},
        {EM, "{\"model\":\"no-chat\",\"input\":\"a\",\"tutti\":{\"k\":1}}",
         "unsupported_parameter", "tutti.k"},
        {RR, "{" M "\"documents\":[\"a\"]}", "missing_required_parameter", "query"},
        {RR, "{" M "\"query\":\"a\"}", "missing_required_parameter", "documents"},
        {RR, "{" M "\"query\":\"a\",\"documents\":[]}", "invalid_value", "documents"},
        {RR, "{" M "\"query\":\"a\",\"documents\":[\"a\",5]}", "invalid_value", "documents[1]"},
        {RR, "{" M "\"query\":\"a\",\"documents\":[{}]}", "missing_required_parameter",
         "documents[0].text"},
        {RR, "{" M "\"query\":\"a\",\"documents\":[\"a\"],\"top_n\":-1}", "invalid_value",
         "top_n"},
        {RR, "{" M "\"query\":\"a\",\"documents\":[\"a\"],\"tutti\":{\"k_query\":2}}",
         "missing_required_parameter", "tutti.k_passage"},
        {SC, "{" M "\"text_1\":\"a\"}", "missing_required_parameter", "text_2"},
        {SC, "{" M "\"text_1\":[\"a\",\"b\"],\"text_2\":\"c\"}", "invalid_value", "text_1"},
        {SC, "{" M "\"text_1\":\"a\",\"text_2\":[5]}", "invalid_value", "text_2[0]"},
    };
    REFUSED(list);
}

static void the_context_is_a_limit(void **state)
{
    (void)state;
    static const bad list[] = {
        {CO, "{" M P "\"max_tokens\":512}", "context_length_exceeded", "max_tokens"},
        {CO, "{" M P "\"max_tokens\":2147483647}", "context_length_exceeded", "max_tokens"},
        {CH, "{" M U "\"max_tokens\":5,\"max_completion_tokens\":512}", "context_length_exceeded",
         "max_completion_tokens"},
        {CO, "{" M P "\"max_tokens\":500,\"suffix\":\"twelve bytes\"}", "context_length_exceeded",
         "suffix"},
    };
    REFUSED(list);
    tt_buf long_prompt = {0};
    tt_buf_puts(&long_prompt, "{" M "\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (int i = 0; i < 600; i++)
        tt_buf_putc(&long_prompt, 'x');
    tt_buf_puts(&long_prompt, "\"}]}");
    refused(&(bad){CH, tt_buf_text(&long_prompt), "context_length_exceeded", "messages"});
    tt_buf_free(&long_prompt);
}

static void samplers_and_aliases(void **state)
{
    (void)state;
    static const bad list[] = {
        {CO, "{" M P "\"tutti\":{\"sampler\":\"nope\"}}", "invalid_value", "tutti.sampler"},
        {CO, "{" M P "\"tutti\":{\"sampler\":5}}", "invalid_value", "tutti.sampler"},
        {CO, "{" M P "\"tutti\":{\"guide\":\"org/fake\"}}", "unsupported_parameter",
         "tutti.guide"},
        {CO, "{" M P "\"tutti\":{\"sampler\":\"guided\"}}", "missing_required_parameter",
         "tutti.guide"},
        {CO, "{" M P "\"tutti\":{\"sampler\":\"guided\",\"guide\":\"nope\"}}",
         "model_not_found", "tutti.guide"},
        {CO, "{" M P "\"tutti\":{\"remask\":\"best\"}}", "invalid_value", "tutti.remask"},
        {CO, "{" M P "\"tutti\":{\"remask\":1}}", "invalid_value", "tutti.remask"},
        {CO, "{" M P "\"tutti\":{\"steps\":0.5}}", "invalid_value", "tutti.steps"},
        {CO, "{" M P "\"tutti\":{\"threshold\":0.5}}", "unsupported_parameter", "tutti.threshold"},
        {CO, "{" M P "\"num_denoising_steps\":8,\"tutti\":{\"sampler\":\"threshold\"}}",
         "unsupported_parameter", "num_denoising_steps"},
        {CO, "{" M P "\"temperature\":1,\"tutti\":{\"temperature\":0.5}}", "invalid_value",
         "temperature"},
        {CO, "{" M P "\"max_nfe\":8,\"num_denoising_steps\":9}", "invalid_value", "max_nfe"},
        {CO, "{" M P "\"confidence_metric\":\"vibes\"}", "invalid_value", "confidence_metric"},
        {CO, "{" M P "\"stream_mode\":\"slow\"}", "invalid_value", "stream_mode"},
        {CO, "{" M P "\"diffusing\":true,\"stream\":false}", "invalid_value", "diffusing"},
        {CO, "{" M P "\"diffusing\":true,\"tutti\":{\"stream_mode\":\"delta\"}}", "invalid_value",
         "diffusing"},
        {CO, "{" M P "\"tutti\":{\"placeholder\":5}}", "invalid_value", "tutti.placeholder"},
        {CO, "{" M P "\"tutti\":{\"stream_interval_ms\":-1}}", "invalid_value",
         "tutti.stream_interval_ms"},
        {CO, "{" M P "\"tutti\":{\"deadline_ms\":-1}}", "invalid_value", "tutti.deadline_ms"},
    };
    REFUSED(list);
}

static void strict_mode_refuses_what_has_no_effect(void **state)
{
    (void)state;
    static const char body[] = "{" M P "\"user\":\"me\",\"store\":true,\"max_tokens\":1}";
    cJSON_Delete(post(CO, body));
    api.strict = true;
    refused(&(bad){CO, body, "unknown_parameter", "user"});
    api.strict = false;
}

static void values_that_change_nothing_are_accepted(void **state)
{
    (void)state;
    cJSON_Delete(post(CO, "{" M P "\"best_of\":1,\"presence_penalty\":0,\"frequency_penalty\":0.0,"
                          "\"logit_bias\":{},\"suffix\":null,\"stop\":null,\"n\":null,"
                          "\"max_tokens\":2,\"stream\":false,\"seed\":null,\"echo\":false}"));
    cJSON_Delete(post(CH, "{" M U "\"tools\":[],\"tool_choice\":\"auto\",\"response_format\":"
                          "{\"type\":\"text\"},\"modalities\":[\"text\"],\"prediction\":null,"
                          "\"reasoning_effort\":\"low\",\"metadata\":{\"a\":\"b\"}}"));
}

static void llama_and_tokenize_shapes(void **state)
{
    (void)state;
    static const bad list[] = {
        {"/infill", "{\"stream\":true}", "unsupported_parameter", "stream"},
        {"/infill", "{\"n\":2}", "unsupported_parameter", "n"},
        {"/infill", "{\"prompt\":[1]}", "invalid_value", "prompt"},
        {"/infill", "{\"n_predict\":0}", "invalid_value", "n_predict"},
        {"/infill", "{\"input_prefix\":5}", "invalid_value", "input_prefix"},
        {"/v1/tokenize", "{}", "missing_required_parameter", "prompt"},
        {"/v1/tokenize", "{\"prompt\":[1]}", "invalid_value", "prompt"},
        {"/v1/tokenize", "{\"model\":\"no-tok\",\"prompt\":\"x\"}", "unsupported_value", "model"},
        {"/v1/detokenize", "{}", "missing_required_parameter", "tokens"},
        {"/v1/detokenize", "{\"tokens\":[5,260]}", "invalid_value", "tokens[1]"},
        {"/v1/detokenize", "{\"tokens\":[5],\"x\":1}", "unknown_parameter", "x"},
    };
    REFUSED(list);
}

static void loading_and_draining_answer_503(void **state)
{
    (void)state;
    int status;
    static const char body[] = "{\"model\":\"later\",\"prompt\":\"x\"}";
    api.state = TT_API_LOADING;
    cJSON *t = ask("POST", CO, body, &status);
    assert_int_equal(status, 503);
    assert_string_equal(text_at(t, "error.code"), "model_loading");
    cJSON_Delete(t);
    cJSON_Delete(post(CO, "{" M P "\"max_tokens\":1}")); /* those that are there answer */
    cJSON_Delete(ask("GET", "/health", "", &status));
    assert_int_equal(status, 503);
    api.state = TT_API_DRAINING;
    t = ask("POST", CO, "{" M P "\"max_tokens\":1}", &status);
    assert_int_equal(status, 503);
    assert_string_equal(text_at(t, "error.code"), "draining");
    cJSON_Delete(t);
    cJSON_Delete(ask("GET", "/v1/health/live", "", &status));
    assert_int_equal(status, 200);
    api.state = TT_API_READY;
    cJSON_Delete(ask("GET", "/v1/health/ready", "", &status));
    assert_int_equal(status, 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(broken_bodies, fresh),
        cmocka_unit_test_setup(models_and_required_members, fresh),
        cmocka_unit_test_setup(unknown_and_unsupported_members, fresh),
        cmocka_unit_test_setup(types_and_ranges, fresh),
        cmocka_unit_test_setup(prompts_and_messages, fresh),
        cmocka_unit_test_setup(holes, fresh),
        cmocka_unit_test_setup(steering, fresh),
        cmocka_unit_test_setup(texts_to_score, fresh),
        cmocka_unit_test_setup(texts_to_score_are_limited, fresh),
        cmocka_unit_test_setup(texts_to_encode, fresh),
        cmocka_unit_test_setup(the_context_is_a_limit, fresh),
        cmocka_unit_test_setup(samplers_and_aliases, fresh),
        cmocka_unit_test_setup(strict_mode_refuses_what_has_no_effect, fresh),
        cmocka_unit_test_setup(values_that_change_nothing_are_accepted, fresh),
        cmocka_unit_test_setup(llama_and_tokenize_shapes, fresh),
        cmocka_unit_test_setup(loading_and_draining_answer_503, fresh),
    };
    return cmocka_run_group_tests_name("api_refuse", tests, open_api, close_api);
}
