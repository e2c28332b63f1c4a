/* trie.c - see trie.h. The strings are sorted; then the nodes of one depth are made from those of
 * the depth above, so that the children of a node lie side by side. */
#include "tokenizers/text/trie.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    uint32_t from, to; /* the items below a node, in sorted order */
} range;

static int by_text(const void *x, const void *y, void *text)
{
    const tt_trie_item *a = x, *b = y;
    const char *t = text;
    int c = memcmp(t + a->at, t + b->at, a->bytes < b->bytes ? a->bytes : b->bytes);
    if (c)
        return c;
    if (a->bytes != b->bytes)
        return a->bytes < b->bytes ? -1 : 1;
    return a->value < b->value ? -1 : a->value > b->value;
}

/* Number of nodes: for every item its bytes beyond what it shares with the one before. */
static size_t count_nodes(const char *text, const tt_trie_item *item, size_t n)
{
    size_t nodes = 1;
    for (size_t i = 0; i < n; i++) {
        size_t same = 0;
        if (i)
            while (same < item[i].bytes && same < item[i - 1].bytes &&
                   text[item[i].at + same] == text[item[i - 1].at + same])
                same++;
        nodes += item[i].bytes - same;
    }
    return nodes;
}

static void fill(tt_trie *t, range *r, const char *text, const tt_trie_item *item, bool last_wins)
{
    size_t level = 0, level_end = 1;
    for (size_t depth = 0; level < level_end; depth++) {
        for (size_t k = level; k < level_end; k++) {
            uint32_t i = r[k].from;
            for (; i < r[k].to && item[i].bytes == depth; i++)
                if (last_wins || t->node[k].value < 0)
                    t->node[k].value = item[i].value;
            t->node[k].child = (uint32_t)t->count;
            while (i < r[k].to) {
                unsigned char c = (unsigned char)text[item[i].at + depth];
                size_t made = t->count++;
                t->node[made] = (tt_trie_node){.c = c, .value = -1};
                r[made].from = i;
                while (i < r[k].to && (unsigned char)text[item[i].at + depth] == c)
                    i++;
                r[made].to = i;
                t->node[k].n++;
            }
        }
        level = level_end;
        level_end = t->count;
    }
}

tt_status tt_trie_open(tt_trie *t, const char *text, tt_trie_item *item, size_t n, bool last_wins,
                       tt_err *e)
{
    *t = (tt_trie){0};
    memset(t->first, -1, sizeof t->first);
    if (n == 0)
        return TT_OK;
    if (n > INT32_MAX)
        return tt_fail(e, TT_EFORMAT, "too many strings");
    qsort_r(item, n, sizeof *item, by_text, (char *)text);
    for (size_t i = 0; i < n; i++)
        if (item[i].bytes > t->longest)
            t->longest = item[i].bytes;
    if (t->longest > TT_TRIE_LONGEST)
        return tt_fail(e, TT_EUNSUP, "a token of %zu bytes, at most %d are supported", t->longest,
                       TT_TRIE_LONGEST);
    size_t nodes = count_nodes(text, item, n);
    t->node = nodes < INT32_MAX ? calloc(nodes, sizeof *t->node) : NULL;
    range *r = nodes < INT32_MAX ? malloc(nodes * sizeof *r) : NULL;
    if (!t->node || !r) {
        free(r);
        tt_trie_close(t);
        return tt_fail(e, TT_ENOMEM, "no memory for a trie of %zu nodes", nodes);
    }
    t->node[0].value = -1;
    t->count = 1;
    r[0] = (range){0, (uint32_t)n};
    fill(t, r, text, item, last_wins);
    free(r);
    for (uint32_t i = 0; i < t->node[0].n; i++)
        t->first[t->node[t->node[0].child + i].c] = (int32_t)(t->node[0].child + i);
    return TT_OK;
}

void tt_trie_close(tt_trie *t)
{
    free(t->node);
    *t = (tt_trie){0};
}
