/* replay_text.c - replays reference ids and texts of the text tokenizers.
 *
 * The folder: strings.jsonl (test strings), cut/ (tokenizers), expected/NAME.ids, .dec and .tpl
 * (one line per string), invalid_utf8.jsonl and partial_decode.jsonl. A case is called NAME/ids,
 * NAME/dec, NAME/tpl, NAME/invalid or NAME/partial; every line counts once.
 *
 * NAME-cased and NAME-nospecial are NAME with lower-casing off, or without added tokens. Names
 * without a file under cut/ are whole tokenizers that a repository cannot hold: they are replayed
 * from $TUTTI_TOKENIZERS/NAME/ when that is there. */
#include <dirent.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "tests/golden/replay.h"
#include "tokenizers/text.h"

enum { SHOWN = 10 }; /* mismatches printed per case */

typedef struct {
    char **line;
    size_t n;
    char *memory;
} lines;

typedef struct {
    const char *dir, *glob;
    char **string; /* the test strings */
    size_t *bytes;
    size_t strings;
    int *passed, *failed;
    int wrong; /* mismatches in the current case */
} replay;

/* --- files --- */

static char *slurp(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    tt_buf b = {0};
    size_t n;
    do {
        if (!tt_buf_reserve(&b, 1 << 16))
            abort();
        n = fread(b.data + b.size, 1, 1 << 16, f);
        b.size += n;
    } while (n);
    b.data[b.size] = '\0';
    fclose(f);
    *bytes = b.size;
    return b.data;
}

static bool read_lines(lines *l, const char *dir, const char *name)
{
    char path[4096];
    size_t bytes;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    *l = (lines){.memory = slurp(path, &bytes)};
    if (!l->memory)
        return false;
    size_t n = 0;
    for (size_t i = 0; i < bytes; i++)
        n += l->memory[i] == '\n';
    l->line = calloc(n + 1, sizeof *l->line);
    for (char *p = l->memory, *end; l->line && (end = strchr(p, '\n')); p = end + 1) {
        *end = '\0';
        l->line[l->n++] = p;
    }
    return l->line != NULL;
}

static void free_lines(lines *l)
{
    free(l->line);
    free(l->memory);
    *l = (lines){0};
}

static char *from_hex(const char *hex, size_t *bytes)
{
    size_t n = strlen(hex) / 2;
    char *out = malloc(n + 1);
    for (size_t i = 0; out && i < n; i++) {
        unsigned x = 0;
        sscanf(hex + 2 * i, "%2x", &x);
        out[i] = (char)x;
    }
    *bytes = n;
    return out;
}

static const char *member(const cJSON *o, const char *key)
{
    const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, key));
    return s ? s : "";
}

/* --- counting and reporting --- */

static bool wanted(const replay *r, const char *name, const char *kind)
{
    char id[300];
    snprintf(id, sizeof id, "%s/%s", name, kind);
    return !r->glob || !*r->glob || fnmatch(r->glob, id, 0) == 0;
}

static void count(replay *r, bool ok)
{
    if (ok)
        ++*r->passed;
    else
        ++*r->failed;
    r->wrong += !ok;
}

static void print_hex(const char *p, size_t n)
{
    for (size_t i = 0; i < n && i < 24; i++)
        printf("%02x", (unsigned char)p[i]);
}

static void check_ids(replay *r, const char *name, const char *kind, const char *case_id,
                      const tt_ids *have, const tt_ids *want)
{
    size_t i = 0;
    while (i < have->count && i < want->count && have->id[i] == want->id[i])
        i++;
    bool ok = i == have->count && i == want->count;
    if (!ok && r->wrong < SHOWN)
        printf("%s/%s %s: ids differ at position %zu: have %d, want %d (%zu and %zu ids)\n", name,
               kind, case_id, i, i < have->count ? have->id[i] : -1,
               i < want->count ? want->id[i] : -1, have->count, want->count);
    count(r, ok);
}

static void check_text(replay *r, const char *name, const char *kind, const char *case_id,
                       const char *have, size_t have_n, const char *want, size_t want_n)
{
    size_t i = 0;
    while (i < have_n && i < want_n && have[i] == want[i])
        i++;
    bool ok = i == have_n && i == want_n;
    if (!ok && r->wrong < SHOWN) {
        printf("%s/%s %s: texts differ at byte %zu: have ", name, kind, case_id, i);
        print_hex(have + i, have_n - i);
        printf(", want ");
        print_hex(want + i, want_n - i);
        printf(" (%zu and %zu bytes)\n", have_n, want_n);
    }
    count(r, ok);
}

static void complain(replay *r, const char *name, const char *kind, const char *case_id,
                     const tt_err *e)
{
    if (r->wrong < SHOWN)
        printf("%s/%s %s: %s\n", name, kind, case_id, e->text);
    count(r, false);
}

static void end_case(replay *r, const char *name, const char *kind)
{
    if (r->wrong > SHOWN)
        printf("%s/%s: and %d more\n", name, kind, r->wrong - SHOWN);
    r->wrong = 0;
}

/* --- opening --- */

/* The text of tokenizer.json with the change that the variant's name asks for. */
static char *edited(const char *json, const char *suffix)
{
    cJSON *tree = cJSON_Parse(json);
    cJSON *normal = cJSON_GetObjectItemCaseSensitive(tree, "normalizer");
    if (!strcmp(suffix, "-cased") && normal)
        cJSON_ReplaceItemInObjectCaseSensitive(normal, "lowercase", cJSON_CreateFalse());
    if (!strcmp(suffix, "-nospecial") && tree)
        cJSON_ReplaceItemInObjectCaseSensitive(tree, "added_tokens", cJSON_CreateArray());
    char *text = tree ? cJSON_PrintUnformatted(tree) : NULL;
    cJSON_Delete(tree);
    return text;
}

/* Status of opening; TT_EIO when there is no such file. SentencePiece itself knows no control
 * tokens in text, so its expectations are those of plain text. */
static tt_status open_cut(const replay *r, const char *name, tt_tok **out, tt_err *e)
{
    static const char *const suffixes[] = {"", "-cased", "-nospecial"};
    char path[4096];
    *out = NULL;
    for (int i = 0; i < 4; i++) {
        const char *suffix = i < 3 ? suffixes[i] : "";
        size_t n = strlen(name), k = strlen(suffix), bytes;
        if (n < k || strcmp(name + n - k, suffix))
            continue;
        snprintf(path, sizeof path, "%s/cut/%.*s.%s", r->dir, (int)(n - k), name,
                 i == 0 ? "model" : "json"); /* beside a .model, the .json is only a dump */
        char *data = slurp(path, &bytes);
        if (!data)
            continue;
        char *text = k ? edited(data, suffix) : data;
        tt_status st = tt_tok_open_text(out, text, k ? strlen(text) : bytes, NULL, 0, e);
        if (k)
            free(text);
        free(data);
        return st;
    }
    const char *more = getenv("TUTTI_TOKENIZERS");
    if (!more || !*more)
        return tt_fail(e, TT_EIO, "needs a download");
    snprintf(path, sizeof path, "%s/%s", more, name);
    return tt_tok_open(out, path, e);
}

/* --- cases --- */

static void parse_ids(const char *line, tt_ids *out)
{
    out->count = 0;
    for (char *end; *line; line = end) {
        int32_t id = (int32_t)strtol(line, &end, 10);
        if (end == line)
            break;
        if (tt_ids_add(out, &id, 1, NULL))
            abort();
    }
}

static void array_ids(const cJSON *list, tt_ids *out)
{
    const cJSON *x;
    out->count = 0;
    cJSON_ArrayForEach(x, list)
    {
        int32_t id = x->valueint;
        if (tt_ids_add(out, &id, 1, NULL))
            abort();
    }
}

static void encode_case(replay *r, const tt_tok *t, const char *name, const char *kind,
                        unsigned flags)
{
    char file[300];
    lines l;
    tt_ids have = {0}, want = {0};
    snprintf(file, sizeof file, "expected/%s.%s", name, kind);
    if (!wanted(r, name, kind) || !read_lines(&l, r->dir, file))
        return;
    for (size_t i = 0; i < l.n && i < r->strings; i++) {
        tt_err e;
        char id[32];
        snprintf(id, sizeof id, "line %zu", i + 1);
        have.count = 0;
        parse_ids(l.line[i], &want);
        if (tt_tok_encode(t, r->string[i], r->bytes[i], flags, &have, &e))
            complain(r, name, kind, id, &e);
        else
            check_ids(r, name, kind, id, &have, &want);
    }
    end_case(r, name, kind);
    tt_ids_free(&have);
    tt_ids_free(&want);
    free_lines(&l);
}

/* Decodes the expected ids in one go and as a stream: both must give the expected text. */
static void decode_one(replay *r, const tt_tok *t, const char *name, const char *id,
                       const tt_ids *ids, const char *want, size_t want_n)
{
    tt_err e;
    tt_buf whole = {0}, parts = {0};
    tt_tok_stream s = {0};
    tt_status st = tt_tok_decode(t, ids->id, ids->count, false, &whole, &e);
    for (size_t i = 0; i < ids->count && !st; i++)
        st = tt_tok_stream_add(t, &s, ids->id[i], &parts, &e);
    tt_tok_stream_end(t, &s, &parts);
    if (st)
        complain(r, name, "dec", id, &e);
    else if (whole.size != parts.size ||
             memcmp(tt_buf_text(&whole), tt_buf_text(&parts), whole.size))
        check_text(r, name, "dec", "streamed", tt_buf_text(&parts), parts.size, tt_buf_text(&whole),
                   whole.size);
    else
        check_text(r, name, "dec", id, tt_buf_text(&whole), whole.size, want, want_n);
    tt_buf_free(&whole);
    tt_buf_free(&parts);
}

static void decode_case(replay *r, const tt_tok *t, const char *name)
{
    char file[300];
    lines ids_of, text_of;
    snprintf(file, sizeof file, "expected/%s.dec", name);
    if (!wanted(r, name, "dec") || !read_lines(&text_of, r->dir, file))
        return;
    snprintf(file, sizeof file, "expected/%s.ids", name);
    if (!read_lines(&ids_of, r->dir, file)) {
        free_lines(&text_of);
        return;
    }
    tt_ids ids = {0};
    for (size_t i = 0; i < text_of.n && i < ids_of.n && i < r->strings; i++) {
        char id[32];
        size_t n;
        snprintf(id, sizeof id, "line %zu", i + 1);
        parse_ids(ids_of.line[i], &ids);
        bool same = !strcmp(text_of.line[i], "=");
        char *other = same ? NULL : from_hex(text_of.line[i], &n);
        decode_one(r, t, name, id, &ids, same ? r->string[i] : other, same ? r->bytes[i] : n);
        free(other);
    }
    end_case(r, name, "dec");
    tt_ids_free(&ids);
    free_lines(&ids_of);
    free_lines(&text_of);
}

static void invalid_case(replay *r, const tt_tok *t, const char *name)
{
    lines l;
    if (!wanted(r, name, "invalid") || !read_lines(&l, r->dir, "invalid_utf8.jsonl"))
        return;
    tt_ids have = {0}, want = {0};
    for (size_t i = 0; i < l.n; i++) {
        cJSON *o = cJSON_Parse(l.line[i]);
        const cJSON *ids = cJSON_GetObjectItemCaseSensitive(o, name);
        if (cJSON_IsArray(ids)) {
            tt_err e;
            size_t n;
            char *text = from_hex(member(o, "hex"), &n);
            have.count = 0;
            array_ids(ids, &want);
            if (tt_tok_encode(t, text, n, TT_TOK_PARSE_SPECIAL, &have, &e))
                complain(r, name, "invalid", member(o, "id"), &e);
            else
                check_ids(r, name, "invalid", member(o, "id"), &have, &want);
            free(text);
        }
        cJSON_Delete(o);
    }
    end_case(r, name, "invalid");
    tt_ids_free(&have);
    tt_ids_free(&want);
    free_lines(&l);
}

/* After each id exactly the expected bytes come out; after the end, what was held back. */
static void partial_one(replay *r, const tt_tok *t, const char *name, const cJSON *o)
{
    tt_ids ids = {0};
    tt_buf have = {0}, want = {0};
    tt_tok_stream s = {0};
    tt_err e;
    tt_status st = TT_OK;
    array_ids(cJSON_GetObjectItemCaseSensitive(o, "ids"), &ids);
    const cJSON *emit = cJSON_GetObjectItemCaseSensitive(o, "emit");
    emit = emit ? emit->child : NULL;
    for (size_t i = 0; i <= ids.count && !st && emit; i++, emit = emit->next) {
        size_t n;
        char *bytes = from_hex(cJSON_GetStringValue(emit), &n);
        tt_buf_add(&want, bytes, n);
        tt_buf_putc(&want, '|'); /* marks which id the bytes came with */
        free(bytes);
        if (i < ids.count)
            st = tt_tok_stream_add(t, &s, ids.id[i], &have, &e);
        else
            tt_tok_stream_end(t, &s, &have);
        tt_buf_putc(&have, '|');
    }
    if (st)
        complain(r, name, "partial", member(o, "id"), &e);
    else
        check_text(r, name, "partial", member(o, "id"), tt_buf_text(&have), have.size,
                   tt_buf_text(&want), want.size);
    tt_ids_free(&ids);
    tt_buf_free(&have);
    tt_buf_free(&want);
}

static void partial_case(replay *r, const tt_tok *t, const char *name)
{
    lines l;
    if (strcmp(name, "gpt2-8k") || !wanted(r, name, "partial") ||
        !read_lines(&l, r->dir, "partial_decode.jsonl"))
        return;
    for (size_t i = 0; i < l.n; i++) {
        cJSON *o = cJSON_Parse(l.line[i]);
        partial_one(r, t, name, o);
        cJSON_Delete(o);
    }
    end_case(r, name, "partial");
    free_lines(&l);
}

static void replay_name(replay *r, const char *name)
{
    static const char *const kinds[] = {"ids", "dec", "tpl", "invalid", "partial"};
    bool any = false;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        any |= wanted(r, name, kinds[i]);
    if (!any)
        return;
    tt_err e;
    tt_tok *t;
    tt_status st = open_cut(r, name, &t, &e);
    if (st == TT_EIO) {
        printf("%s: left out, %s\n", name, e.text);
        return;
    }
    if (st) {
        complain(r, name, "open", "", &e);
        end_case(r, name, "open");
        return;
    }
    unsigned parse = strncmp(tt_tok_kind(t), "SentencePiece", 13) ? TT_TOK_PARSE_SPECIAL : 0;
    encode_case(r, t, name, "ids", parse);
    encode_case(r, t, name, "tpl", parse | TT_TOK_ADD_SPECIAL);
    decode_case(r, t, name);
    invalid_case(r, t, name);
    partial_case(r, t, name);
    tt_tok_close(t);
}

static bool read_strings(replay *r)
{
    lines l;
    if (!read_lines(&l, r->dir, "strings.jsonl"))
        return false;
    r->string = calloc(l.n + 1, sizeof *r->string);
    r->bytes = calloc(l.n + 1, sizeof *r->bytes);
    for (r->strings = 0; r->string && r->bytes && r->strings < l.n; r->strings++) {
        cJSON *o = cJSON_Parse(l.line[r->strings]);
        r->string[r->strings] = from_hex(member(o, "hex"), &r->bytes[r->strings]);
        cJSON_Delete(o);
    }
    free_lines(&l);
    return true;
}

static int is_ids(const struct dirent *d)
{
    size_t n = strlen(d->d_name);
    return n > 4 && !strcmp(d->d_name + n - 4, ".ids");
}

int tt_replay_text_tokenizers(const char *dir, const char *case_glob, const char *device,
                              int *passed, int *failed)
{
    (void)device;
    replay r = {.dir = dir, .glob = case_glob, .passed = passed, .failed = failed};
    char path[4096];
    struct dirent **entry = NULL;
    snprintf(path, sizeof path, "%s/expected", dir);
    int n = scandir(path, &entry, is_ids, alphasort);
    bool ok = n >= 0 && read_strings(&r);
    for (int i = 0; i < n; i++) {
        entry[i]->d_name[strlen(entry[i]->d_name) - 4] = '\0';
        if (ok)
            replay_name(&r, entry[i]->d_name);
        free(entry[i]);
    }
    free(entry);
    for (size_t i = 0; i < r.strings; i++)
        free(r.string[i]);
    free(r.string);
    free(r.bytes);
    if (!ok)
        printf("%s: cannot be read\n", dir);
    return ok ? 0 : -1;
}
