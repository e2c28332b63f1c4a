/* comit_net.h - what the files of COMiT's network share; see comit.h and comit.c. */
#ifndef TT_COMIT_NET_H
#define TT_COMIT_NET_H

#include "models/comit.h"

enum {
    TT_COMIT_WAVES = 256, /* numbers that a time becomes */
    TT_COMIT_MODS = 6,    /* vectors of a layer's modulation: shift, scale, gate of both halves */
    TT_COMIT_TIMES = 32,  /* whose modulations are kept; different ones of a run at most */
    TT_COMIT_CALLS = 64,  /* of a run at most */
};

typedef struct {
    tt_matrix *qkv, *out, *up, *down, *x_mod, *r_mod;
} tt_comit_layer;

/* What the network makes of times alone, kept from call to call: every step of every picture that
 * is painted in so many steps needs the same ones, and their matrices are as large as all others
 * together. */
typedef struct {
    void *mods; /* device, per layer: none, then of every time that of patches and of messages */
    void *last; /* device, TT_COMIT_TIMES x 2 width */
    void *time; /* device, [width] */
    float t[TT_COMIT_TIMES];
    uint64_t used[TT_COMIT_TIMES], clock; /* 0: free */
} tt_comit_times;

struct tt_comit {
    tt_stream *stream;
    tt_comit_info info;
    int64_t ff, grid;
    tt_compute compute;
    tt_dtype type;
    bool strict;
    tt_comit_layer *layer;
    tt_matrix *patches, *message[2], *place[2], *time[2];
    tt_matrix *last_mod, *velocity, *renewed;
    tt_act *places; /* device, rows x width: c, grid^2 patches, r, q */
    float *ones;    /* device, [width] */
    tt_comit_times times;
    void *space; /* of a run; grown to the largest. It begins with a row of zeros */
    size_t space_bytes;
};

/* Lists of some calls, and views into the device's working memory. */
typedef struct {
    const tt_comit_call *call;
    int64_t calls, rows, patches; /* rows and patches of all calls */
    int64_t times;                /* different ones */
    float t[TT_COMIT_TIMES];
    int slot[TT_COMIT_TIMES];
    bool velocities, messages; /* wanted */
    /* host: patches, messages and places; ints as below; results */
    float *input, *velocity, *renewed;
    int32_t *index;
    /* device, of activations. parts: a row of zeros, patches, messages, places of all calls */
    tt_act *x, *h, *wide, *parts, *numbers;
    /* device: of each row: its part, its place, its modulation; of each patch and query: its row,
       and its time or modulation */
    int32_t *part, *place, *mod, *patch_row, *query_row, *patch_time, *query_mod;
} tt_comit_job;

static inline tt_act *tt_comit_at(const tt_comit *c, void *p, int64_t elements)
{
    return (char *)p + elements * (int64_t)tt_dtype_size(c->type);
}

static inline int64_t tt_comit_patches(const tt_comit *c, const tt_comit_call *k)
{
    return (int64_t)(k->h / c->info.patch) * (k->w / c->info.patch);
}

static inline int64_t tt_comit_rows(const tt_comit *c, const tt_comit_call *k)
{
    return 1 + tt_comit_patches(c, k) + 2 * c->info.tokens;
}

static inline int64_t tt_comit_patch_numbers(const tt_comit *c)
{
    return c->info.channels * c->info.patch * c->info.patch;
}

/* --- comit_times.c --- */

/* Where the modulations at t are; the ones used longest ago make room. A run has at most
 * TT_COMIT_TIMES times, so that none of its own goes. hidden: device, room for a row. */
tt_status tt_comit_slot(tt_comit *c, int *slot, float t, tt_act *hidden, tt_err *e);
/* The first row of a layer's modulations, from vector `chunk` of TT_COMIT_MODS on. Row 0 changes
 * nothing but opens the gates; 1 + 2 slot is that of patches, 2 + 2 slot that of messages. */
tt_act *tt_comit_mods(const tt_comit *c, int64_t block, int64_t chunk);

/* --- comit_lists.c --- */

/* Room for the host's lists; closing is due also after a failure. */
tt_status tt_comit_open_lists(const tt_comit *c, tt_comit_job *j, tt_err *e);
void tt_comit_close_lists(tt_comit_job *j);
void tt_comit_fill_lists(const tt_comit *c, tt_comit_job *j);
/* Lays the device's views out from base (NULL: only counts) and returns the bytes used. */
size_t tt_comit_lay_out(const tt_comit *c, tt_comit_job *j, char *base);
/* Numbers and ints to upload; where messages and places begin among the numbers. */
int64_t tt_comit_numbers(const tt_comit *c, const tt_comit_job *j);
int64_t tt_comit_ints(const tt_comit *c, const tt_comit_job *j);
int64_t tt_comit_messages_at(const tt_comit *c, const tt_comit_job *j);
int64_t tt_comit_places_at(const tt_comit *c, const tt_comit_job *j);
/* From the downloads to what the calls ask for. */
void tt_comit_give_results(const tt_comit *c, tt_comit_job *j);

/* --- comit_layers.c --- */

/* From the filled lists to the downloads, recorded where the backend can; not waited for. */
tt_status tt_comit_run_layers(tt_comit *c, tt_comit_job *j, tt_err *e);

#endif
