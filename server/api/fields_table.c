/* fields_table.c - see fields.h: members of requests and of their extension object, and aliases. */
#include "server/api/fields.h"

#define CO TT_ON_COMPLETIONS
#define CH TT_ON_CHAT
#define IN TT_ON_INFILL
#define FI TT_ON_FIM
#define LL TT_ON_LLAMA
#define TK TT_ON_TOKENIZE
#define DT TT_ON_DETOKENIZE
#define GEN TT_ON_GENERATE
#define LK TT_ON_LIKELIHOOD
#define EM TT_ON_EMBEDDINGS
#define RR TT_ON_RERANK
#define SC TT_ON_SCORE
#define ENC TT_ON_ENCODE
#define RD TT_ON_READ
#define GI TT_ON_IMAGES
#define ED TT_ON_EDITS
#define VA TT_ON_VARIATIONS
#define MK TT_ON_MAKE
#define PX (TT_ON_EDITS | TT_ON_VARIATIONS | TT_ON_IMAGE_TOKENS)
#define OUT (TT_ON_MAKE | TT_ON_TOKEN_IMAGES)
#define PIC TT_ON_PICTURES

#define READ(n, where, t, lo, hi, h)                                                               \
    {.name = n, .on = where, .type = TT_FIELD_##t, .min = lo, .max = hi, .help = h}
#define TOLERATED(n, where, t)                                                                     \
    {.name = n, .on = where, .type = TT_FIELD_##t, .use = TT_FIELD_TOLERATED,                      \
     .help = "accepted, has no effect"}
#define NEUTRAL(n, where, t, same)                                                                 \
    {.name = n, .on = where, .type = TT_FIELD_##t, .use = TT_FIELD_NEUTRAL, .neutral = same,       \
     .help = "not supported: only the value that changes nothing is accepted"}

#define FORM (CO | CH | FI | LL) /* one answer that may have a form */
#define INT32 2147483647.0
#define SEED 9007199254740992.0

static const tt_field fields[] = {
    READ("model", GEN | TK | DT | RD, TEXT, 0, 0, "id of the model, as listed by /v1/models"),
    READ("prompt", CO | FI | LL | TK, PROMPT, 0, 0, "text, token ids, or a list of either"),
    READ("suffix", CO | FI, TEXT, 0, 0,
         "text after the answer: the answer fills the gap between prompt and suffix"),
    READ("messages", CH | TK, ARRAY, 0, 0, "the conversation so far"),
    READ("segments", IN, ARRAY, 0, 0,
         "pieces of a text in order: {\"text\": ...} or {\"hole\": {\"id\", \"max\"}}; mask "
         "tokens written in a text are holes, too"),
    READ("input_prefix", LL, TEXT, 0, 0, "text before the gap"),
    READ("input_suffix", LL, TEXT, 0, 0, "text after the gap"),
    READ("input_extra", LL, ARRAY, 0, 0, "other files: accepted, not used, noted in the answer"),
    READ("n_predict", LL, INT, -1, INT32, "tokens of the gap; -1: the default"),
    READ("content", TK, TEXT, 0, 0, "the text to tokenize"),
    READ("add_special", TK, BOOL, 0, 0, "add the tokens that begin and end a text; default true"),
    READ("add_special_tokens", TK, BOOL, 0, 0, "the same under vLLM's name"),
    READ("parse_special", TK, BOOL, 0, 0, "special tokens written in the text become their ids"),
    READ("with_pieces", TK, BOOL, 0, 0, "answer with the text of every token"),
    READ("return_token_strs", TK, BOOL, 0, 0, "the same under vLLM's name"),
    READ("tokens", DT, ARRAY, 0, 0, "the token ids"),
    READ("skip_special_tokens", DT, BOOL, 0, 0, "leave special tokens out; default false"),

    READ("max_tokens", CO | CH | FI, INT, 1, INT32,
         "tokens of the answer's canvas. Default: 16 for completions, 32 to fill in the middle, 64 "
         "for chat or what the context has left"),
    READ("max_completion_tokens", CH, INT, 1, INT32, "the same; wins over max_tokens"),
    READ("min_tokens", CO | CH | FI, INT, 0, INT32,
         "the answer does not end before so many tokens. With a suffix: its length is chosen from "
         "here to max_tokens, so that the suffix is likeliest behind it"),
    READ("prediction", CO | CH, OBJECT, 0, 0,
         "{\"type\": \"content\", \"content\": text} the answer is expected to be: where a step "
         "would choose its token, that token is taken at once; text further right is in the "
         "model's sight meanwhile"),
    READ("response_format", CO | CH, OBJECT, 0, 0,
         "{\"type\": \"json_schema\", \"json_schema\": {\"name\", \"schema\"}}: the answer is JSON "
         "of that schema; json_object: any object, up to 3 levels deep; text: anything"),
    READ("n", GEN, INT, 1, 128, "answers per prompt, each with its own random numbers"),
    READ("best_of", CO, INT, 1, 128,
         "so many answers are made, of which the n likeliest come back: those of the highest mean "
         "log-probability a token, as it was when the token was placed"),
    READ("seed", GEN, INT, -SEED, SEED,
         "start of the random numbers; same seed, same answer. Random when absent"),
    READ("stop", CO | CH | FI | LL, TEXTS, 0, 4, "up to 4 strings that end the answer"),
    READ("stream", GEN, BOOL, 0, 0, "answer in pieces, as server-sent events"),
    READ("stream_options", CO | CH | IN | FI, OBJECT, 0, 0,
         "{\"include_usage\": true} sends token counts before the end"),
    READ("echo", CO, BOOL, 0, 0, "put the prompt in front of the answer"),
    READ("logprobs", CO, INT, 0, 5, "alternatives per token in the answer's logprobs object"),
    READ("logprobs", CH, BOOL, 0, 0, "log-probabilities of the answer's tokens"),
    READ("top_logprobs", CH, INT, 0, 20, "alternatives per token; needs logprobs"),
    READ("logit_bias", CO | CH | FI | LL | IN, OBJECT, 0, 0,
         "token id -> -100..100, added to its logit; -100 bans it"),
    READ("temperature", GEN, NUMBER, 0, 100,
         "0 takes the most likely token. When absent, the model's own default applies"),
    READ("top_p", GEN, NUMBER, 0, 1, "draw only from the top probability mass"),
    READ("tutti", GEN, OBJECT, 0, 0, "how to sample and stream: see TuttiOptions"),
    READ("tutti", RD, OBJECT, 0, 0, "how to measure: see TuttiReadOptions"),

    READ("text", LK, PROMPT, 0, 0, "the text to score: a string, token ids, or a list of either"),
    READ("prompt", LK, ANY, 0, 0, "text or token ids before what is scored; not scored itself"),
    READ("continuation", LK, ANY, 0, 0,
         "text or token ids to score behind the prompt. It is tokenized on its own, so a blank "
         "between the two belongs at its beginning"),
    READ("choices", LK, ARRAY, 0, 0,
         "several continuations; the answer tells how probable each is among them"),
    READ("suffix", LK, TEXT, 0, 0,
         "text behind what is scored; for models that see both sides"),
    READ("method", LK, TEXT, 0, 0,
         "monte_carlo: bound by random masks; left_to_right: chain rule, one pass per token, "
         "nothing random; exact: of causal models. Default: monte_carlo, or exact where possible"),
    READ("samples", LK, INT, 1, 1024,
         "random masks per text for method monte_carlo, default 128; the standard error falls with "
         "their square root"),
    READ("seed", LK, INT, -SEED, SEED, "start of the random masks; random when absent"),
    READ("input", EM, PROMPT, 0, 0, "text, token ids, or a list of either"),
    READ("encoding_format", EM, TEXT, 0, 0, "float (default), or base64 of little-endian float32"),
    READ("dimensions", EM, INT, 1, INT32,
         "keep only so many leading numbers of each vector, at most the model's width"),
    READ("query", RR, TEXT, 0, 0, "what the documents are compared with"),
    READ("documents", RR, ARRAY, 0, 0, "strings, or objects with a text"),
    READ("top_n", RR, INT, 0, INT32, "answer with so many best documents; 0: all"),
    READ("return_documents", RR, BOOL, 0, 0, "put the texts into the answer; default true"),
    READ("text_1", SC, TEXTS, 0, 0, "one text, or as many as text_2"),
    READ("text_2", SC, TEXTS, 0, 0, "what text_1 is compared with, one by one"),

    /* images */
    READ("model", PIC, TEXT, 0, 0, "id of an image model; default: the first there is"),
    READ("prompt", GI | ED, TEXT, 0, 0,
         "what to show: names of labels the model knows, separated by commas (GET "
         "/v1/images/labels lists them), or the number of a class; empty: anything"),
    READ("image", PX, ANY, 0, 0,
         "a PNG file (form), or base64, a data URL or {\"image_url\": data URL} (JSON). Of any "
         "size: it is scaled and its middle cut out"),
    READ("images", PX, ARRAY, 0, 0, "the same as a list; edits and variations take one"),
    READ("mask", ED, ANY, 0, 0,
         "a PNG of the image's size: where it is transparent, the image is made anew. Without it, "
         "where the image itself is transparent"),
    READ("n", OUT, INT, 1, 128, "images, each with its own random numbers"),
    READ("seed", OUT, INT, -SEED, SEED,
         "start of the random numbers; same seed, same image. Random when absent"),
    READ("size", OUT, TEXT, 0, 0, "auto, or the size the model has, as in 64x64"),
    READ("quality", MK, TEXT, 0, 0,
         "low halves the steps, high (hd) doubles them, xhigh and max take 3 and 4 times as many; "
         "tutti.steps wins"),
    READ("response_format", OUT, TEXT, 0, 0, "b64_json; there is no file store for url"),
    READ("output_format", OUT, TEXT, 0, 0, "png"),
    READ("background", OUT, TEXT, 0, 0, "auto or opaque"),
    READ("stream", MK, BOOL, 0, 0, "send events: partial images, then each image"),
    READ("stream", TT_ON_IMAGE_TOKENS, BOOL, 0, 0,
         "send events: the tokens after every crop, where the model looks at crops; then each "
         "image's"),
    READ("partial_images", MK, INT, 0, 3,
         "pictures of each unfinished image, evenly over its steps; needs stream"),
    READ("tokens", TT_ON_TOKEN_IMAGES, ARRAY, 0, 0,
         "the token ids of an image, or a list of such; the leading ones where a model can do with "
         "those"),
    READ("decode_offset", TT_ON_TOKEN_IMAGES, ARRAY, 0, 0,
         "of models that look at crops: the two numbers that came with the tokens, or a list of "
         "such; default: those of the usual order of crops"),
    READ("tutti", PIC, OBJECT, 0, 0, "how to make images: see TuttiImageOptions"),

    /* other names of members of `tutti`; checked where that member is read */
    READ("num_inference_steps", MK, INT, 0, 65536, "as tutti.steps"),
    READ("guidance_scale", MK, NUMBER, 0, 100, "as tutti.cfg_scale"),
    READ("temperature", MK, NUMBER, 0, 100, "as tutti.temperature"),
    READ("top_k", MK, INT, 0, 1000000, "as tutti.top_k"),
    READ("top_p", MK, NUMBER, 0, 1, "as tutti.top_p"),
    READ("priority", PIC, INT, -1000000, 1000000, "as tutti.priority"),
    READ("top_k", GEN, INT, 0, 1000000, "as tutti.top_k"),
    READ("min_p", GEN, NUMBER, 0, 1, "as tutti.min_p"),
    READ("block_length", GEN, INT, 0, 65536, "as tutti.block_length"),
    READ("num_denoising_steps", GEN, INT, 0, 65536, "as tutti.steps"),
    READ("num_inference_steps", GEN, INT, 0, 65536, "as tutti.steps"),
    READ("max_nfe", GEN, INT, 0, 65536, "as tutti.steps"),
    READ("negative_prompt", GEN, TEXT, 0, 0, "as tutti.negative_prompt"),
    READ("guidance_scale", GEN, NUMBER, 0, 100, "as tutti.cfg_scale"),
    READ("confidence_metric", GEN, TEXT, 0, 0,
         "top1_prob or entropy_inverse: as tutti.remask confidence or entropy"),
    READ("stream_mode", GEN, TEXT, 0, 0, "as tutti.stream_mode"),
    READ("guided_regex", FORM, TEXT, 0, 0, "as tutti.regex"),
    READ("guided_json", FORM, OBJECT, 0, 0, "as tutti.json_schema"),
    READ("json_schema", FORM, OBJECT, 0, 0, "as tutti.json_schema"),
    READ("priority", GEN, INT, -1000000, 1000000, "as tutti.priority"),
    READ("diffusing", CO | CH | IN | FI, BOOL, 0, 0,
         "true: stream snapshots of the whole text, as tutti.stream_mode snapshot"),

    NEUTRAL("output_compression", OUT, ANY, "100|\"100\""),
    NEUTRAL("presence_penalty", GEN, ANY, "0"),
    NEUTRAL("frequency_penalty", GEN, ANY, "0"),
    NEUTRAL("repetition_penalty", GEN, ANY, "1"),
    NEUTRAL("repeat_penalty", GEN, ANY, "1"),
    NEUTRAL("use_beam_search", GEN, ANY, "false"),
    NEUTRAL("ignore_eos", GEN, ANY, "false"),
    NEUTRAL("tools", CH, ANY, "[]"),
    NEUTRAL("tool_choice", CH, ANY, "\"none\"|\"auto\""),
    NEUTRAL("functions", CH, ANY, "[]"),
    NEUTRAL("function_call", CH, ANY, "\"none\"|\"auto\""),
    NEUTRAL("audio", CH, ANY, ""),
    NEUTRAL("modalities", CH, ANY, "[\"text\"]"),
    NEUTRAL("web_search_options", CH, ANY, ""),
    NEUTRAL("grammar", GEN, ANY, "\"\""),

    TOLERATED("user", PIC, ANY),
    TOLERATED("safety_identifier", PIC, ANY),
    TOLERATED("style", MK, ANY),
    TOLERATED("moderation", MK, ANY),
    TOLERATED("input_fidelity", ED, ANY),
    TOLERATED("complexity", MK, ANY),
    TOLERATED("metadata", PIC, ANY),

    TOLERATED("store", GEN, ANY),
    TOLERATED("metadata", GEN, ANY),
    TOLERATED("service_tier", GEN, ANY),
    TOLERATED("parallel_tool_calls", CH, ANY),
    TOLERATED("user", GEN | RD, ANY),
    TOLERATED("safety_identifier", GEN, ANY),
    TOLERATED("prompt_cache_key", GEN, ANY),
    TOLERATED("prompt_cache_retention", GEN, ANY),
    TOLERATED("reasoning_effort", CH, ANY),
    TOLERATED("verbosity", CH, ANY),
    TOLERATED("cache_prompt", LL, ANY),
    TOLERATED("id_slot", LL, ANY),
    TOLERATED("n_indent", LL, ANY),
    TOLERATED("response_fields", LL, ANY),
    TOLERATED("samplers", LL, ANY),
    TOLERATED("t_max_predict_ms", LL, ANY),
    TOLERATED("t_max_prompt_ms", LL, ANY),
    TOLERATED("timings_per_token", LL, ANY),

    {.name = NULL},
};

static const tt_field extension[] = {
    READ("sampler", GEN, TEXT, 0, 0,
         "which step rule fills the canvas. Default: the model's own; 'infill' where text follows "
         "the columns to fill"),
    READ("guide", GEN, TEXT, 0, 0,
         "id of the causal model that supervises sampler 'guided'; same vocabulary"),
    READ("stream_mode", GEN, TEXT, 0, 0,
         "committed: text deltas that never change; snapshot: the whole text every time; "
         "delta: events per token; of insertion models {op: insert, hole, position, id, text}"),
    READ("stream_interval_ms", GEN, INT, 0, 60000, "least time between two frames; default 0"),
    READ("placeholder", GEN, TEXT, 0, 16,
         "what an open position looks like in snapshots; default U+2591"),
    READ("special_tokens", GEN | RD, BOOL, 0, 0,
         "special tokens written in the prompt become their ids; default false"),
    READ("deadline_ms", GEN | RD, INT, 0, 86400000, "give up after this time; 0: never"),
    READ("priority", GEN | RD, INT, -1000000, 1000000, "lower runs first"),
    READ("trace", GEN, BOOL, 0, 0,
         "answer with every change of the canvas in order: step, position, token and its "
         "log-probability; streams tell them as they come"),
    READ("negative_prompt", GEN, TEXT, 0, 0,
         "guidance leads away from this prompt instead of the prompt masked; needs cfg_scale"),
    READ("shrink", GEN, BOOL, 0, 0,
         "once an end token is placed, positions behind it are neither filled nor computed "
         "(default); false: as the samplers' released code has it"),
    READ("regex", FORM, TEXT, 0, 0,
         "regular expression that the answer's text matches as a whole, whatever the sampler: "
         "literals, classes, . | () * + ? {m,n}, \\d \\w \\s; no look-around, no references"),
    READ("json_schema", FORM, OBJECT, 0, 0,
         "the answer is JSON of this schema; what of schemas is not supported is refused by name"),
    READ("force", CO | CH | FI | LL, OBJECT, 0, 0,
         "tokens that stand in the answer from the start: {\"0\": id or a text of one token}; "
         "positions count from its beginning"),
    READ("ban", CO | CH | FI | LL, OBJECT, 0, 0,
         "tokens impossible at a position: {\"0\": token or list}; everywhere: logit_bias"),
    READ("allow", CO | CH | FI | LL, OBJECT, 0, 0,
         "tokens that alone are possible at a position: {\"0\": token or list}"),
    READ("pooling", ENC, TEXT, 0, 0,
         "what becomes the vector: mean of all tokens' final hidden states (default of models that "
         "see both sides), last (the last token's; default of causal models), eos (an end token is "
         "added and its state taken)"),
    READ("normalize", EM, BOOL, 0, 0, "vectors of length 1; default true"),
    READ("k", ENC, INT, 1, 32,
         "instead of pooling: let the model put the text into k words at masked positions, and "
         "take the states there, k vectors from one pass"),
    READ("kind", EM, TEXT, 0, 0, "with k: query (default) or passage, as the instruction calls it"),
    READ("outputs", EM, TEXTS, 0, 2,
         "with k: dense (default), sparse (weights of the text's own words), or both"),
    READ("wording", ENC, OBJECT, 0, 0,
         "with k: what the model is told, as its checkpoint was trained: {\"system\", \"query\", "
         "\"passage\", \"start\"}; {text} stands for the text in query and passage, {k} for the "
         "number of words; start is the beginning of the answer"),
    READ("sparse_top", EM, INT, 1, 1024, "with k: most weights of a sparse vector, default 128"),
    READ("k_query", RR | SC, INT, 1, 32, "vectors of the query, default k"),
    READ("k_passage", RR | SC, INT, 1, 32, "vectors of each document, default k"),

    READ("class_id", MK, INT, 0, INT32,
         "number of a label of the first group, instead of a prompt"),
    READ("labels", MK, OBJECT, 0, 0,
         "labels by group: {\"concept\": name or number, \"style\": ...}, instead of a prompt"),
    READ("strength", VA, NUMBER, 0, 1, "share of the tokens made anew, default 0.6"),
    READ("mask_rule", ED, TEXT, 0, 0,
         "which tokens a mask means: those with any pixel in it (default), the majority, or all"),
    READ("mask_grow", ED, BOOL, 0, 0, "and their neighbours; default false"),
    READ("outpaint", ED, OBJECT, 0, 0,
         "{\"left\", \"top\", \"right\", \"bottom\"}: shares of the picture that are new land; the "
         "image is scaled into the rest"),
    READ("paste", ED, BOOL, 0, 0,
         "outside the tokens made anew show the image as it came, not as the codec sees it; "
         "default true"),
    READ("search", GI | CO, OBJECT, 0, 0,
         "make many, keep what verifiers like best: see TuttiSearch"),
    READ("crops", TT_ON_IMAGE_TOKENS | VA, OBJECT, 0, 0,
         "of models that look at crops: {\"policy\": raster, random, adaptive or list, \"order\": "
         "numbers of crops, \"global_crop\": look at the whole picture first, \"num_crops\", "
         "\"seed\", \"sample_latents\", \"preview\": stream a quick picture after each}"),
    READ("paint", OUT, OBJECT, 0, 0,
         "of models that paint from noise: {\"steps\", \"solver\": euler or midpoint, "
         "\"guidance\", \"momentum\", \"guidance_form\": projected or plain}"),
    READ("edit", TT_ON_TOKEN_IMAGES, ARRAY, 0, 0,
         "tokens to replace: [{\"index\", \"id\"}]"),
    READ("swap", TT_ON_TOKEN_IMAGES, OBJECT, 0, 0,
         "{\"from\", \"to\", \"tokens\"}: a range, its end excluded, is taken from another image's "
         "tokens"),
    READ("interpolate", TT_ON_TOKEN_IMAGES, OBJECT, 0, 0,
         "{\"tokens\": of another image, \"points\": so many from the one to the other, or \"at\": "
         "shares of the way, \"decode_offset\"}: an image for each; codes are mixed number by "
         "number and rounded"),
    READ("return_tokens", OUT, BOOL, 0, 0, "the token ids with each image"),
    READ("tokens_only", MK, BOOL, 0, 0, "token ids and no picture"),
    READ("previews", MK, INT, 0, 64,
         "as partial_images, up to one a step; also shown by jobs"),
    READ("stream_mode", MK, TEXT, 0, 0, "delta: an event a step with the tokens it placed"),
    READ("async", PIC, BOOL, 0, 0,
         "answer 202 at once with a job; GET /v1/jobs/{id} tells how far it is"),
    READ("deadline_ms", PIC, INT, 0, 86400000, "give up after this time; 0: never"),
    READ("priority", PIC, INT, -1000000, 1000000, "lower runs first"),
    {.name = NULL},
};

static const tt_alias aliases[] = {
    {"temperature", "temperature", "OpenAI"},
    {"top_p", "top_p", "OpenAI"},
    {"top_k", "top_k", "vLLM"},
    {"min_p", "min_p", "vLLM"},
    {"block_length", "block_length", "dlmserve"},
    {"num_denoising_steps", "steps", "dlmserve"},
    {"num_inference_steps", "steps", "vllm-omni"},
    {"max_nfe", "steps", "Diffulex"},
    {"guidance_scale", "cfg_scale", "vllm-omni"},
    {"negative_prompt", "negative_prompt", "vllm-omni"},
    {"confidence_metric", "remask", "dlmserve"},
    {"stream_mode", "stream_mode", "Diffulex"},
    {"guided_regex", "regex", "vLLM"},
    {"guided_json", "json_schema", "vLLM"},
    {"json_schema", "json_schema", "llama.cpp"},
    {"priority", "priority", "vLLM"},
    {NULL, NULL, NULL},
};

const tt_field *tt_fields(void) { return fields; }
const tt_field *tt_extension_fields(void) { return extension; }
const tt_alias *tt_aliases(void) { return aliases; }
