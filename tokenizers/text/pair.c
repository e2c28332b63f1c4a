/* pair.c - see pair.h. The settings are those of the released GPT-2 and CLIP tokenizers. */
#include "tokenizers/text/pair.h"

#include <string.h>

#include "tokenizers/text/doc.h"

static const char gpt2[] =
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},"
    "\"decoder\":{\"type\":\"ByteLevel\"},";

static const char clip[] =
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},"
    "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\\\\s+\"},\"content\":\" \"},"
    "{\"type\":\"Lowercase\"}]},"
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":"
    "{\"Regex\":\"'s|'t|'re|'ve|'m|'ll|'d|[\\\\p{L}]+|[\\\\p{N}]|[^\\\\s\\\\p{L}\\\\p{N}]+\"},"
    "\"behavior\":\"Removed\",\"invert\":true},"
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]},"
    "\"decoder\":{\"type\":\"ByteLevel\"},";

#define START "<|startoftext|>"
#define END   "<|endoftext|>"

/* A merge is two tokens with one blank between them; its line becomes a JSON text. */
static tt_status put_merge(tt_buf *out, const char *line, size_t n, size_t number, tt_err *e)
{
    const char *blank = memchr(line, ' ', n);
    if (!blank || blank == line || blank == line + n - 1 ||
        memchr(blank + 1, ' ', n - (size_t)(blank + 1 - line)))
        return tt_fail(e, TT_EFORMAT, "merges.txt: line %zu is not two tokens with a blank between",
                       number);
    tt_buf_add(out, "\"", 1);
    for (size_t i = 0; i < n; i++) {
        if (line[i] == '"' || line[i] == '\\')
            tt_buf_add(out, "\\", 1);
        if ((unsigned char)line[i] < 0x20)
            return tt_fail(e, TT_EFORMAT, "merges.txt: line %zu holds a control character", number);
        tt_buf_add(out, &line[i], 1);
    }
    tt_buf_add(out, "\"", 1);
    return TT_OK;
}

/* The first line may be a comment, and the last may be missing its end. */
static tt_status put_merges(tt_buf *out, const char *text, size_t bytes, tt_err *e)
{
    bool any = false;
    size_t at = 0, number = 1;
    for (; at < bytes; number++) {
        const char *line = text + at, *end = memchr(line, '\n', bytes - at);
        size_t n = end ? (size_t)(end - line) : bytes - at;
        at += n + 1;
        if (n && line[n - 1] == '\r')
            n--;
        if (!n || (number == 1 && n > 8 && !memcmp(line, "#version", 8)))
            continue;
        if (any)
            tt_buf_add(out, ",", 1);
        tt_status s = put_merge(out, line, n, number, e);
        if (s)
            return s;
        any = true;
    }
    return TT_OK;
}

static tt_status put_specials(tt_buf *out, const cJSON *vocab, tt_err *e)
{
    static const char *const names[] = {START, END};
    int id[2];
    for (int i = 0; i < 2; i++) {
        const cJSON *j = cJSON_GetObjectItemCaseSensitive(vocab, names[i]);
        if (!cJSON_IsNumber(j))
            return tt_fail(e, TT_EFORMAT, "vocab.json: '%s' is missing", names[i]);
        id[i] = j->valueint;
    }
    tt_buf_printf(out,
                  "\"added_tokens\":[{\"id\":%d,\"content\":\"" START "\",\"special\":true},"
                  "{\"id\":%d,\"content\":\"" END "\",\"special\":true}],"
                  "\"post_processor\":{\"type\":\"RobertaProcessing\",\"sep\":[\"" END "\",%d],"
                  "\"cls\":[\"" START "\",%d],\"trim_offsets\":false,\"add_prefix_space\":false},",
                  id[0], id[1], id[1], id[0]);
    return TT_OK;
}

/* Whether any token ends with the mark of a word's end. */
static bool marks_words(const cJSON *vocab)
{
    const cJSON *j;
    cJSON_ArrayForEach(j, vocab)
    {
        size_t n = strlen(j->string);
        if (n > 4 && !strcmp(j->string + n - 4, "</w>"))
            return true;
    }
    return false;
}

tt_status tt_tok_join_pair(tt_buf *out, const char *vocab, size_t vocab_bytes, const char *merges,
                           size_t merges_bytes, tt_err *e)
{
    cJSON *tree;
    tt_status s = tt_doc_parse(&tree, vocab, vocab_bytes, e);
    if (s)
        return tt_context(e, s, "vocab.json");
    bool words = cJSON_IsObject(tree) && marks_words(tree);
    tt_buf_printf(out, "{%s", words ? clip : gpt2);
    if (words)
        s = put_specials(out, tree, e);
    cJSON_Delete(tree);
    if (s)
        return s;
    tt_buf_printf(out, "\"model\":{\"type\":\"BPE\",%s\"vocab\":",
                  words ? "\"unk_token\":\"" END "\",\"end_of_word_suffix\":\"</w>\"," : "");
    tt_buf_add(out, vocab, vocab_bytes);
    tt_buf_printf(out, ",\"merges\":[");
    s = put_merges(out, merges, merges_bytes, e);
    if (!s)
        tt_buf_printf(out, "]}}");
    return !s && out->failed ? tt_fail(e, TT_ENOMEM, "no memory for a tokenizer") : s;
}
