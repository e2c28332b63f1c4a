/* rules.c - see rules.h. */
#include "samplers/rules.h"

static const char *piece(const void *arg, int32_t id, size_t *bytes)
{
    *bytes = 1;
    return (const char *)arg + id;
}

tt_status tt_rule_regex_open(tt_grammar **out, const char *regex, size_t bytes, tt_err *e)
{
    char every[256]; /* the tokens are the bytes */
    for (int i = 0; i < 256; i++)
        every[i] = (char)i;
    tt_alphabet a = {.vocab = 256, .piece = piece, .arg = every};
    return tt_grammar_open(out, regex, bytes, &a, e);
}

float tt_rule_regex(const tt_grammar *g, const char *text, size_t bytes)
{
    int32_t state = tt_grammar_start(g);
    for (size_t i = 0; i < bytes && state >= 0; i++)
        state = tt_grammar_next(g, state, (unsigned char)text[i]);
    return state >= 0 && tt_grammar_accepts(g, state) ? 1 : 0;
}

float tt_rule_length(const char *text, size_t bytes, int64_t min, int64_t max)
{
    int64_t n = 0;
    for (size_t i = 0; i < bytes; i++)
        n += ((unsigned char)text[i] & 0xC0) != 0x80; /* not a later byte of a character */
    return n < min ? (float)(n - min) : n > max ? (float)(max - n) : 0;
}
