/* restok.h - what the files of the ResTok codec share; see restok.c. Rows of a picture in either
 * transformer are its grids, coarsest first, and its latents: behind the grids in the encoder,
 * before the one grid in the decoder. */
#ifndef TT_RESTOK_H
#define TT_RESTOK_H

#include "models/nn/vit.h"
#include "tokenizers/image.h"
#include "tokenizers/image/convnet.h"

enum { TT_RESTOK_SCALES = 8, TT_RESTOK_BLOCKS = 8, TT_RESTOK_STAGES = 16 };
enum { TT_RESTOK_PICTURES = 8 }; /* in the networks at once */

/* Convolutions between pixels and latents; the encoder or the decoder. */
typedef struct {
    tt_matrix *conv_in, *conv_out, *up[TT_RESTOK_SCALES];
    tt_conv_block level[TT_RESTOK_SCALES][TT_RESTOK_BLOCKS], mid[TT_RESTOK_BLOCKS];
    tt_conv_norm norm_out;
} tt_restok_net;

/* The transformer of either side. */
typedef struct {
    tt_vit vit;
    int64_t layers;
    tt_vit_block *block;
    tt_vit_norm pre, post;
    tt_matrix *embed; /* z to width, or width to z */
} tt_restok_tower;

/* Cosines and sines of the rows of TT_RESTOK_PICTURES pictures; device. */
typedef struct {
    void *cos, *sin;
} tt_restok_turning;

typedef struct {
    tt_codec base;
    /* of the convolutions, finest first; groups of a norm */
    int64_t scales, blocks, z, channel[TT_RESTOK_SCALES], groups;
    tt_restok_net encoder, decoder;
    tt_restok_tower in, out;
    int64_t side;   /* image tokens along a side */
    int64_t dims;   /* of a code */
    int64_t stages; /* grids in the end */
    bool in_place;  /* see restok.c */
    double theta;
    struct {
        float *weight, *bias; /* host */
    } down[TT_MAX_LEVELS];
    tt_matrix *up[TT_MAX_LEVELS]; /* float32; their biases place the level too */
    float *stage_place[TT_RESTOK_STAGES], *level_in[TT_MAX_LEVELS];
    float *unit, *nothing, *blank; /* codes of length 1; for dropped tokens; image tokens */
    /* made when they are needed; in: by merges so far */
    tt_restok_turning turn_in[TT_RESTOK_STAGES], turn_out;
    void *space; /* of decoding; grown to the largest call */
    size_t space_bytes;
} tt_restok;

static inline int64_t tt_restok_cells(const tt_restok *r)
{
    return r->side * r->side;
}

static inline int64_t tt_restok_tokens(const tt_restok *r)
{
    return r->base.info.layout.tokens;
}

/* Kinds of blank image tokens. */
static inline int64_t tt_restok_blanks(const tt_restok *r)
{
    return r->in_place ? tt_restok_cells(r) : 1;
}

/* Cells of the grid that comes of so many merges. */
static inline int64_t tt_restok_grid(const tt_restok *r, int merges)
{
    return r->side * (r->side >> merges);
}

/* --- names of tensors and their numbers: restok.c --- */

typedef struct {
    char text[160];
} tt_restok_name;

/* format: of a text and a number. */
tt_restok_name tt_restok_named(const char *format, const char *a, int i);
tt_restok_name tt_restok_join(const char *a, const char *b);
/* A tensor of n numbers in memory that the caller frees, also after a failure. */
tt_status tt_restok_host(const tt_weights *w, float **out, const char *called, int64_t n,
                         tt_err *e);
/* Rows of a picture in the encoder when all merging is done. */
int64_t tt_restok_most_rows(const tt_restok *r);

/* --- restok_config.c --- */

/* All sizes. TT_EFORMAT, TT_EUNSUP naming the key. */
tt_status tt_restok_read_config(tt_restok *r, tt_config *c, tt_err *e);

/* --- restok_pixels.c --- */

tt_status tt_restok_bind_encoder(tt_restok *r, const tt_bind *b, tt_err *e);
tt_status tt_restok_bind_decoder(tt_restok *r, const tt_bind *b, tt_err *e);
void tt_restok_close_net(tt_restok_net *n, tt_stream *s);
/* Numbers of a picture anywhere in the convolutions at most. */
int64_t tt_restok_most_numbers(const tt_restok *r);
/* From pixels in h to rows of the transformer's width. */
tt_status tt_restok_encode_pixels(tt_restok *r, tt_conv_flow *f, tt_act *rows, tt_err *e);
/* From rows of z numbers in h to pixels in x. */
tt_status tt_restok_decode_pixels(tt_restok *r, tt_conv_flow *f, tt_err *e);
/* Multiply-adds of the decoder for a picture. */
double tt_restok_pixel_macs(const tt_restok *r);

/* --- restok_tower.c --- */

/* side: "encoder" or "decoder"; stream and sizes are set. All but the embedding. */
tt_status tt_restok_bind_tower(tt_restok_tower *t, const tt_bind *b, const char *side, tt_err *e);
void tt_restok_close_tower(tt_restok_tower *t, tt_stream *s);
/* Multiply-adds of so many rows that all see each other. */
double tt_restok_tower_macs(const tt_restok_tower *t, int64_t rows);

/* --- restok_places.c --- */

/* Fills r->turn_in[merges] or r->turn_out unless it is there. */
tt_status tt_restok_turn_in(tt_restok *r, int merges, tt_err *e);
tt_status tt_restok_turn_out(tt_restok *r, tt_err *e);
void tt_restok_turning_close(tt_restok_turning *t, tt_stream *s);

/* --- restok_codes.c --- */

/* What belongs to a level, and the codebook. */
tt_status tt_restok_bind_codes(tt_restok *r, const tt_weights *w, tt_err *e);
void tt_restok_close_codes(tt_restok *r);
/* The numbers of every token before quantisation: tokens x dims. row: tokens x width. */
void tt_restok_project(const tt_restok *r, float *z, const float *row);
/* The code whose direction is nearest to that of z (dims numbers); the lower one of two. distance:
 * how far it and the next one are, or NULL. */
int32_t tt_restok_nearest(const tt_restok *r, const float *z, tt_code_distance *distance);

/* --- restok_encode.c, restok_decode.c: of 1 to TT_RESTOK_PICTURES pictures --- */

tt_status tt_restok_encode(tt_restok *r, int32_t *id, float *latent, tt_code_distance *distance,
                           const float *pixels, int64_t images, tt_err *e);
/* keep: NULL, or how many tokens of each picture count. */
tt_status tt_restok_decode(tt_restok *r, float *pixels, const int32_t *id, const int32_t *keep,
                           int64_t images, tt_err *e);

#endif
