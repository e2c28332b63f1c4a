/* terms.c - the words of a text that a sparse vector may weigh (DiffRetriever, arXiv 2605.07210):
 * lower-case words without stop words and punctuation, each tokenized by itself. */
#include <stdlib.h>
#include <string.h>

#include "server/api/read.h"

enum { LONGEST = 64, MOST = 4096 }; /* bytes of a word; words of a text */

/* English words that say what any text says; sorted. */
static const char *const stop_words[] = {
    "a",     "about", "after", "all",   "also",  "am",    "an",    "and",   "any",   "are",
    "as",    "at",    "be",    "been",  "being", "but",   "by",    "can",   "could", "did",
    "do",    "does",  "doing", "done",  "for",   "from",  "had",   "has",   "have",  "having",
    "he",    "her",   "hers",  "him",   "his",   "how",   "i",     "if",    "in",    "into",
    "is",    "it",    "its",   "just",  "may",   "me",    "might", "more",  "most",  "must",
    "my",    "no",    "nor",   "not",   "of",    "off",   "on",    "only",  "or",    "other",
    "our",   "ours",  "out",   "over",  "own",   "s",     "same",  "shall", "she",   "should",
    "so",    "some",  "such",  "t",     "than",  "that",  "the",   "their", "them",  "then",
    "there", "these", "they",  "this",  "those", "through", "to",  "too",   "under", "until",
    "up",    "very",  "was",   "we",    "were",  "what",  "when",  "where", "which", "while",
    "who",   "whom",  "why",   "will",  "with",  "would", "you",   "your",  "yours",
};

static int by_text(const void *a, const void *b)
{
    return strcmp(a, *(const char *const *)b);
}

static bool is_stop_word(const char *word)
{
    return bsearch(word, stop_words, sizeof stop_words / sizeof *stop_words, sizeof *stop_words,
                   by_text);
}

/* Letters and digits of ASCII; all else that is not ASCII counts as letters. */
static bool in_word(unsigned char b)
{
    return b >= 0x80 || (b >= '0' && b <= '9') || ((b | 0x20) >= 'a' && (b | 0x20) <= 'z');
}

static int ascending(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

tt_status tt_terms(const tt_tok *tok, const char *text, tt_ids *out, tt_err *e)
{
    char word[LONGEST + 1];
    tt_status s = TT_OK;
    int words = 0;
    for (const char *p = text; *p && words < MOST && !s;) {
        size_t n = 0, all = 0;
        for (; in_word((unsigned char)p[all]); all++)
            if (all < LONGEST)
                word[n++] = p[all] >= 'A' && p[all] <= 'Z' ? (char)(p[all] | 0x20) : p[all];
        word[n] = '\0';
        if (n && all <= LONGEST && !is_stop_word(word)) {
            s = tt_tok_encode(tok, word, n, 0, out, e);
            words++;
        }
        p += all ? all : 1;
    }
    if (out->count)
        qsort(out->id, out->count, sizeof *out->id, ascending);
    size_t kept = 0;
    for (size_t i = 0; i < out->count; i++)
        if (!kept || out->id[i] != out->id[kept - 1])
            out->id[kept++] = out->id[i];
    out->count = kept;
    return s;
}
