/* show.c - see show.h. Draws on the terminal's alternate screen, so that nothing is left behind
 * and lines may be wrapped by the terminal itself. */
#include "server/show.h"

#include <stdlib.h>
#include <string.h>

#include "server/holes.h"

enum { PACE_MS = 45 }; /* a frame stays at least so long */

typedef struct {
    char *text; /* NULL while open */
    bool fresh; /* placed by the newest frame */
} column;

typedef struct frame {
    struct frame *next;
    cJSON *json;
} frame;

struct tt_show {
    FILE *to;
    const char *text; /* around the canvas */
    bool with_holes;
    column *column;
    int columns;
    bool grows;   /* open columns are room for insertions, not drawn */
    cJSON *holes; /* what became of the holes, from the first frame */
    frame *first, **last;
    int64_t due_ms;
};

tt_status tt_show_open(tt_show **out, FILE *to, const char *text, bool with_holes, tt_err *e)
{
    tt_show *s = calloc(1, sizeof *s);
    *out = s;
    if (!s)
        return tt_fail(e, TT_ENOMEM, "no memory to show the canvas");
    s->to = to;
    s->text = text;
    s->with_holes = with_holes;
    s->last = &s->first;
    fputs("\033[?1049h\033[?25l", to); /* other screen, no cursor */
    return TT_OK;
}

static void drop_first(tt_show *s)
{
    frame *f = s->first;
    s->first = f->next;
    if (!s->first)
        s->last = &s->first;
    cJSON_Delete(f->json);
    free(f);
}

static void free_columns(tt_show *s)
{
    for (int i = 0; i < s->columns; i++)
        free(s->column[i].text);
    free(s->column);
    s->column = NULL;
    s->columns = 0;
}

void tt_show_close(tt_show *s)
{
    if (!s)
        return;
    fputs("\033[0m\033[?25h\033[?1049l", s->to);
    fflush(s->to);
    while (s->first)
        drop_first(s);
    free_columns(s);
    cJSON_Delete(s->holes);
    free(s);
}

/* --- frames --- */

static int number(const cJSON *object, const char *key)
{
    const cJSON *m = tt_json_get(object, key);
    return cJSON_IsNumber(m) ? m->valueint : 0;
}

tt_status tt_show_add(tt_show *s, const cJSON *json, tt_err *e)
{
    const cJSON *events = tt_json_get(json, "events");
    if (!cJSON_IsArray(events))
        return TT_OK;
    frame *f = calloc(1, sizeof *f);
    if (f)
        f->json = cJSON_Duplicate(json, 1);
    if (!f || !f->json) {
        free(f);
        return tt_fail(e, TT_ENOMEM, "no memory to show the canvas");
    }
    *s->last = f;
    s->last = &f->next;
    return TT_OK;
}

static void place(column *c, const cJSON *event)
{
    const cJSON *text = tt_json_get(event, "text"), *op = tt_json_get(event, "op");
    bool masks = cJSON_IsString(op) && !strcmp(op->valuestring, "mask");
    free(c->text);
    c->text = masks || !cJSON_IsString(text) ? NULL : strdup(text->valuestring);
    c->fresh = c->text != NULL;
}

/* Tokens at a column and right of it, up to the next open one, move by one. */
static void make_room(tt_show *s, int at)
{
    int end = at;
    while (end < s->columns && s->column[end].text)
        end++;
    if (end == s->columns)
        return;
    memmove(&s->column[at + 1], &s->column[at], (size_t)(end - at) * sizeof *s->column);
    s->column[at] = (column){0};
}

static bool is_insertion(const cJSON *event)
{
    const cJSON *op = tt_json_get(event, "op");
    return cJSON_IsString(op) && !strcmp(op->valuestring, "insert");
}

static void apply(tt_show *s, const frame *f)
{
    int columns = number(f->json, "canvas");
    if (columns > 0) { /* the first frame says how many there are */
        free_columns(s);
        s->column = calloc((size_t)columns, sizeof *s->column);
        s->columns = s->column ? columns : 0;
        cJSON_Delete(s->holes);
        s->holes = cJSON_Duplicate(tt_json_get(f->json, "holes"), 1);
        s->grows = cJSON_IsTrue(tt_json_get(f->json, "grows"));
    }
    for (int i = 0; i < s->columns; i++)
        s->column[i].fresh = false;
    const cJSON *event;
    cJSON_ArrayForEach(event, tt_json_get(f->json, "events"))
    {
        int at = number(event, "pos");
        if (at < 0 || at >= s->columns)
            continue;
        if (is_insertion(event))
            make_room(s, at);
        place(&s->column[at], event);
    }
}

/* Control characters other than a line's end would move the cursor. */
static void put(FILE *to, const char *text, size_t bytes)
{
    for (; bytes; text++, bytes--)
        if (*text == '\n')
            fputs("\r\n", to);
        else if ((unsigned char)*text >= 0x20 && *text != 0x7f)
            fputc(*text, to);
}

static void draw_column(const tt_show *s, int i)
{
    const column *c = &s->column[i];
    fputs(c->fresh ? "\033[0;7m" : "\033[0m", s->to);
    if (c->text)
        put(s->to, c->text, strlen(c->text));
    else if (!s->grows)
        fputs("\033[33m\xE2\x96\x91", s->to);
}

static void draw_given(const tt_show *s, const char *text, size_t bytes)
{
    fputs("\033[0;2m", s->to);
    put(s->to, text, bytes);
}

/* Draws a hole: its columns, or the text that was chosen for it. */
static void draw_hole(const tt_show *s, const tt_hole_part *p, int nth, int *at)
{
    const cJSON *hole = s->holes ? cJSON_GetArrayItem(s->holes, nth) : NULL;
    const cJSON *text = tt_json_get(hole, "text"), *tokens = tt_json_get(hole, "tokens");
    int n = cJSON_IsNumber(tokens) ? tokens->valueint : p->tokens;
    if (cJSON_IsString(text)) {
        fputs("\033[0;1m", s->to);
        put(s->to, text->valuestring, strlen(text->valuestring));
    }
    for (int i = 0; i < n && *at < s->columns && !cJSON_IsString(text); i++)
        draw_column(s, (*at)++);
}

static void draw(const tt_show *s, const frame *f)
{
    int at = 0, hole = 0;
    fputs("\033[H", s->to);
    if (!s->with_holes)
        draw_given(s, s->text, strlen(s->text));
    const char *text = s->with_holes ? s->text : "";
    for (tt_hole_part p; tt_holes_next(&text, &p);) {
        if (p.text && !p.choices)
            draw_given(s, p.text, p.bytes);
        else
            draw_hole(s, &p, hole++, &at);
    }
    while (at < s->columns)
        draw_column(s, at++);
    fprintf(s->to, "\033[0;2m\033[J\r\n\r\nstep %d of %d\033[0m", number(f->json, "step"),
            number(f->json, "of"));
    fflush(s->to);
}

int64_t tt_show_tick(tt_show *s, int64_t now_ms)
{
    if (s->first && now_ms >= s->due_ms) {
        apply(s, s->first);
        draw(s, s->first);
        drop_first(s);
        s->due_ms = now_ms + PACE_MS;
    }
    if (!s->first)
        return -1;
    return s->due_ms > now_ms ? s->due_ms - now_ms : 0;
}
