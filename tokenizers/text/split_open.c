/* split_open.c - reads the pre_tokenizer of a tokenizer.json. */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/utf8.h"
#include "tokenizers/text/split_steps.h"
#include "tokenizers/text/unicode.h"

static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static tt_status new_step(tt_split *s, const tt_doc *d, tt_split_fn *run, tt_split_step **out,
                          tt_err *e)
{
    *out = NULL;
    if (s->steps == TT_MAX_STEPS)
        return tt_doc_fail(d, TT_EUNSUP, e, "more than %d steps", TT_MAX_STEPS);
    *out = &s->step[s->steps++];
    **out = (tt_split_step){.run = run};
    return TT_OK;
}

static tt_status read_behavior(const tt_doc *d, const char *key, tt_behavior *out, tt_err *e)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    tt_doc m;
    const char *name;
    size_t n;
    tt_status st = tt_doc_find(d, key, &m, e);
    if (st || !m.item)
        return st;
    st = tt_doc_text(&m, &name, &n, e);
    if (st)
        return st;
    for (int i = 0; i < 5; i++) {
        if (!strcmp(name, names[i])) {
            *out = (tt_behavior)i;
            return TT_OK;
        }
    }
    return tt_doc_fail(&m, TT_EUNSUP, e, "unknown behaviour '%s'", name);
}

/* One character, as a member. */
static tt_status read_char(const tt_doc *d, const char *key, uint32_t *out, tt_err *e)
{
    tt_doc m;
    const char *text;
    size_t n;
    tt_status st = tt_doc_find(d, key, &m, e);
    if (st || !m.item)
        return st;
    st = tt_doc_text(&m, &text, &n, e);
    if (!st && (n == 0 || tt_utf8_decode(text, n, out) != n))
        st = tt_doc_fail(&m, TT_EFORMAT, e, "'%s' is not one character", text);
    return st;
}

static tt_status open_split(tt_split *s, const tt_doc *d, tt_err *e)
{
    tt_split_step *step;
    tt_doc m;
    tt_status st = new_step(s, d, tt_split_by_pattern, &step, e);
    if (!st)
        st = tt_doc_need(d, "pattern", &m, e);
    if (!st)
        st = tt_pattern_open(&step->pattern, &m, e);
    if (!st)
        st = tt_doc_need(d, "behavior", &m, e);
    if (!st)
        st = read_behavior(d, "behavior", &step->behavior, e);
    return st ? st : tt_doc_get_bool(d, "invert", &step->invert, e);
}

static tt_status open_byte_level(tt_split *s, const tt_doc *d, tt_err *e)
{
    tt_split_step *step;
    bool regex = true;
    if (s->byte_level)
        return tt_doc_fail(d, TT_EUNSUP, e, "a second ByteLevel");
    tt_status st = new_step(s, d, tt_split_byte_level, &step, e);
    if (st)
        return st;
    s->byte_level = true;
    step->behavior = TT_ISOLATED;
    step->prefix_always = true;
    st = tt_doc_get_bool(d, "add_prefix_space", &step->prefix_always, e);
    if (!st)
        st = tt_doc_get_bool(d, "use_regex", &regex, e);
    if (!st && regex)
        st = tt_regex_open(&step->pattern.regex, gpt2_pattern, sizeof gpt2_pattern - 1, e);
    return st ? st : new_step(s, d, tt_split_spell, &step, e);
}

/* What matches the pattern stays, the rest goes. */
static tt_status open_whitespace(tt_split *s, const tt_doc *d, tt_err *e)
{
    static const char words[] = "[\\w\\x{200c}\\x{200d}]+|[^\\w\\s\\x{200c}\\x{200d}]+";
    tt_split_step *step;
    tt_status st = new_step(s, d, tt_split_by_pattern, &step, e);
    if (st)
        return st;
    step->behavior = TT_REMOVED;
    step->invert = true;
    return tt_regex_open(&step->pattern.regex, words, sizeof words - 1, e);
}

static tt_status open_chars(tt_split *s, const tt_doc *d, bool (*is)(uint32_t), tt_behavior b,
                            tt_split_step **step, tt_err *e)
{
    tt_status st = new_step(s, d, tt_split_by_chars, step, e);
    if (!st) {
        (*step)->is = is;
        (*step)->behavior = b;
    }
    return st;
}

static tt_status open_whitespace_split(tt_split *s, const tt_doc *d, tt_err *e)
{
    tt_split_step *step;
    return open_chars(s, d, tt_uni_space, TT_REMOVED, &step, e);
}

static tt_status open_punctuation(tt_split *s, const tt_doc *d, tt_err *e)
{
    tt_split_step *step;
    tt_status st = open_chars(s, d, tt_uni_punctuation, TT_ISOLATED, &step, e);
    return st ? st : read_behavior(d, "behavior", &step->behavior, e);
}

static tt_status open_digits(tt_split *s, const tt_doc *d, tt_err *e)
{
    tt_split_step *step;
    bool single = false;
    tt_status st = tt_doc_get_bool(d, "individual_digits", &single, e);
    return st ? st
              : open_chars(s, d, tt_uni_numeric, single ? TT_ISOLATED : TT_CONTIGUOUS, &step, e);
}

static tt_status open_bert(tt_split *s, const tt_doc *d, tt_err *e)
{
    tt_split_step *step;
    tt_status st = open_chars(s, d, tt_uni_space, TT_REMOVED, &step, e);
    return st ? st : open_chars(s, d, tt_uni_punctuation, TT_ISOLATED, &step, e);
}

static tt_status open_delimiter(tt_split *s, const tt_doc *d, tt_err *e)
{
    tt_split_step *step;
    tt_doc m;
    tt_status st = open_chars(s, d, NULL, TT_REMOVED, &step, e);
    if (!st)
        st = tt_doc_need(d, "delimiter", &m, e);
    return st ? st : read_char(d, "delimiter", &step->delimiter, e);
}

static tt_status open_fixed_length(tt_split *s, const tt_doc *d, tt_err *e)
{
    tt_split_step *step;
    int64_t length = 5;
    tt_status st = new_step(s, d, tt_split_by_length, &step, e);
    if (!st)
        st = tt_doc_get_int(d, "length", 1, INT32_MAX, &length, e);
    if (!st)
        step->length = (size_t)length;
    return st;
}

static tt_status open_metaspace(tt_split *s, const tt_doc *d, tt_err *e)
{
    tt_split_step *step;
    const char *scheme = NULL;
    size_t n;
    bool add_prefix = true; /* the older way to say "always" or "never" */
    tt_status st = new_step(s, d, tt_split_metaspace, &step, e);
    if (st)
        return st;
    step->delimiter = 0x2581;
    step->behavior = TT_MERGED_WITH_NEXT;
    step->cut = true;
    if ((st = read_char(d, "replacement", &step->delimiter, e)) ||
        (st = tt_doc_get_bool(d, "add_prefix_space", &add_prefix, e)) ||
        (st = tt_doc_get_text(d, "prepend_scheme", &scheme, &n, e)) ||
        (st = tt_doc_get_bool(d, "split", &step->cut, e)))
        return st;
    if (!scheme)
        scheme = add_prefix ? "always" : "never";
    step->prefix_always = !strcmp(scheme, "always");
    step->prefix_first = !strcmp(scheme, "first");
    if (!step->prefix_always && !step->prefix_first && strcmp(scheme, "never"))
        return tt_doc_fail(d, TT_EUNSUP, e, "unknown prepend_scheme '%s'", scheme);
    return TT_OK;
}

static const struct {
    const char *type;
    tt_status (*open)(tt_split *s, const tt_doc *d, tt_err *e);
} kinds[] = {
    {"Split", open_split},
    {"ByteLevel", open_byte_level},
    {"Whitespace", open_whitespace},
    {"WhitespaceSplit", open_whitespace_split},
    {"Punctuation", open_punctuation},
    {"Digits", open_digits},
    {"BertPreTokenizer", open_bert},
    {"Metaspace", open_metaspace},
    {"CharDelimiterSplit", open_delimiter},
    {"FixedLength", open_fixed_length},
};

static tt_status open_step(tt_split *s, const tt_doc *d, int depth, tt_err *e)
{
    const char *type;
    tt_status st = tt_doc_type(d, &type, e);
    if (st)
        return st;
    if (!strcmp(type, "Sequence")) {
        tt_doc list;
        st = depth < TT_MAX_STEPS ? tt_doc_need(d, "pretokenizers", &list, e)
                                  : tt_doc_fail(d, TT_EUNSUP, e, "nested too deep");
        if (!st)
            st = tt_doc_is_array(&list, e);
        for (tt_doc x = st ? (tt_doc){0} : tt_doc_first(&list); !st && x.item; x = tt_doc_next(&x))
            st = open_step(s, &x, depth + 1, e);
        return st;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(type, kinds[i].type))
            return kinds[i].open(s, d, e);
    return tt_doc_fail(d, TT_EUNSUP, e, "unknown pre-tokeniser '%s'", type);
}

tt_status tt_split_open(tt_split *s, const tt_doc *d, tt_err *e)
{
    *s = (tt_split){0};
    tt_status st = d->item ? open_step(s, d, 0, e) : TT_OK;
    if (st) {
        tt_split_close(s);
        return st;
    }
    s->spelled = s->byte_level;
    if (s->steps && s->step[s->steps - 1].run == tt_split_spell) {
        s->steps--; /* the model reads bytes: nothing needs the spelling */
        s->spelled = false;
    }
    return TT_OK;
}

void tt_split_close(tt_split *s)
{
    for (int i = 0; i < s->steps; i++)
        tt_pattern_close(&s->step[i].pattern);
    *s = (tt_split){0};
}
