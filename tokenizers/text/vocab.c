/* vocab.c - see vocab.h. */
#include "tokenizers/text/vocab.h"

#include <stdlib.h>
#include <string.h>

#include "tokenizers/text/bytes.h"

tt_status tt_vocab_open(tt_vocab *v, size_t expect, bool byte_level, tt_err *e)
{
    *v = (tt_vocab){.byte_level = byte_level};
    return tt_map_open(&v->map, expect, e);
}

void tt_vocab_close(tt_vocab *v)
{
    free(v->token);
    tt_buf_free(&v->text);
    tt_buf_free(&v->piece);
    tt_map_close(v->map);
    *v = (tt_vocab){0};
}

static tt_status make_room(tt_vocab *v, int32_t id, tt_err *e)
{
    size_t need = (size_t)id + 1;
    if (need <= v->room)
        return TT_OK;
    size_t room = v->room * 2 > need ? v->room * 2 : need + 64;
    tt_token *token = calloc(room, sizeof *token); /* holes stay untouched pages */
    if (!token)
        return tt_fail(e, TT_ENOMEM, "no memory for %zu tokens", room);
    if (v->n)
        memcpy(token, v->token, (size_t)v->n * sizeof *token);
    free(v->token);
    v->token = token;
    v->room = room;
    return TT_OK;
}

tt_status tt_vocab_add(tt_vocab *v, int32_t id, const char *text, size_t bytes, uint8_t flags,
                       tt_err *e)
{
    tt_status st = make_room(v, id, e);
    if (st)
        return st;
    if (v->text.size + bytes > UINT32_MAX)
        return tt_fail(e, TT_EFORMAT, "more than 4 GiB of token texts");
    v->token[id] = (tt_token){.at = (uint32_t)v->text.size,
                              .bytes = (uint32_t)bytes,
                              .flags = (uint8_t)(flags | TT_TOKEN_USED)};
    if (id >= v->n)
        v->n = id + 1;
    tt_buf_add(&v->text, text, bytes);
    return v->text.failed ? tt_fail(e, TT_ENOMEM, "no memory for token texts") : TT_OK;
}

tt_status tt_vocab_index(tt_vocab *v, int32_t id, const char *text, size_t bytes, int32_t *old,
                         tt_err *e)
{
    if (!v->byte_level)
        return tt_map_put(v->map, text, bytes, id, old, e);
    if (old)
        *old = -1;
    char room[512], *raw = bytes <= sizeof room ? room : malloc(bytes);
    if (!raw)
        return tt_fail(e, TT_ENOMEM, "no memory for a token of %zu bytes", bytes);
    size_t n = tt_bytes_read_to(raw, text, bytes);
    tt_status st = n != SIZE_MAX ? tt_map_put(v->map, raw, n, id, old, e) : TT_OK;
    if (raw != room)
        free(raw);
    return st;
}

int32_t tt_vocab_find(const tt_vocab *v, const char *text, size_t bytes)
{
    if (!v->byte_level)
        return tt_map_get(v->map, text, bytes);
    char room[512], *raw = bytes <= sizeof room ? room : malloc(bytes);
    size_t n = raw ? tt_bytes_read_to(raw, text, bytes) : SIZE_MAX;
    int32_t id = n != SIZE_MAX ? tt_map_get(v->map, raw, n) : -1;
    if (raw != room)
        free(raw);
    return id;
}
