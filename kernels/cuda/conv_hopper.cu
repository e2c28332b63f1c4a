/* conv_hopper.cu - 3x3 convolution on Hopper as a product by wgmma, of bfloat16 or of float32 in
 * thirds (TT_COMPUTE_THIRDS).
 *
 * A tile is 8 x 16 pixels by TN outputs for each warpgroup that multiplies, of which there are one
 * or two, one below the other. For 64 channels and one column v of the kernel, one bulk copy brings
 * the tile's pixels moved by v - 1 and a line more above and below (zeros outside the image): the
 * three taps of that column then are the same rows of shared memory from line 0, 1 and 2 on, and a
 * line is 1,024 bytes, the unit of the swizzle. So x is read 3 * 18 / 16 times instead of 9, or 3 *
 * 34 / 32 times. Weights come tap by tap. Sums go over channels in runs of 64, then v, then u,
 * whatever the tile: neither its size nor the number of images changes a bit.
 *
 * Long sums over small maps are made of the sums of four shares of the channels, added up in order:
 * one image has too few tiles to fill the GPU. A cluster of four blocks takes a tile, however many
 * images there are. Whether it does follows from the matrix and the size of an image.
 *
 * Where x is to be enlarged first, the pixels of a tile are those of y whose coordinates are odd or
 * even alike: their neighbours (u, v) are the pixels of x itself moved by 0 or 1.
 *
 * In thirds there are three boxes of the pixels for each column of the kernel, smallest parts
 * first; the smallest are multiplied with the largest parts of the weights, the middle ones with
 * the middle and the largest, the largest with all three. The sums of each column go to a sum of
 * sums.
 *
 * With one warpgroup that multiplies two blocks share a multiprocessor: while one writes its tile,
 * the other multiplies. 128 outputs then take 22 KB of the L2 for each tap, in the 512 cycles of
 * its products, which is more than it has for all multiprocessors (about 36 bytes a cycle for each
 * of them). Two warpgroups of a block that share their weights take 27 KB in 1,024 cycles. */
#include "kernels/cuda/conv_hopper_store.cuh"

namespace {

using namespace hopper;

constexpr int kWide = 8, kHigh = 16, kDeep = 64; /* pixels of a warpgroup, channels at a time */
constexpr int kLine = kWide * kDeep * 2;         /* bytes */
constexpr int kHalf = 64 * kDeep * 2 / 16;       /* 64 pixels in units of a descriptor */
constexpr int kShares = 4;                       /* of a sum, one to a block of the cluster */
constexpr int kFewTiles = 8; /* of 8 x 16 pixels an image has where sums are shared out, at most */

/* How a kernel cuts its work: TN outputs a tile; GROUPS warpgroups that multiply, beside one that
 * feeds; SHARES: its cluster takes a tile. */
template <typename T_, int OUTPUTS, int GROUPS_, bool SHARES_> struct cut_of {
    typedef T_ T;
    static constexpr int TN = OUTPUTS, GROUPS = GROUPS_, HIGH = GROUPS * kHigh;
    static constexpr bool SHARES = SHARES_;
    static constexpr int PARTS = sizeof(T) == 2 ? 1 : 3; /* of a number */
    static constexpr int THREADS = 128 * (GROUPS + 1), BLOCKS = GROUPS == 1 ? 2 : 1;
    /* Rings of pixels and of taps of the weights: what is on its way hides the latency. */
    static constexpr int BOX = (HIGH + 2) * kLine, TAP = TN * kDeep * 2; /* bytes */
    static constexpr int BOXES = GROUPS == 2 ? 3 : TN == 128 ? 2 : TN == 64 ? 3 : 4;
    static constexpr int TAPS = TN == 128 ? (GROUPS == 2 ? 6 : 4) : TN == 64 ? 6 : 8;
    static constexpr int RINGS = BOXES * BOX + TAPS * TAP;
    static constexpr int BYTES = 1024 + RINGS + (BOXES + TAPS) * 16;
    static_assert(BLOCKS * (BYTES + 1024) <= 228 << 10, "the blocks do not fit");
    static_assert(TN * 128 * 4 <= RINGS, "no room for the sums of a share");

    /* Taps of a run of channels. */
    static constexpr int RUN = PARTS == 3 ? 54 : 9;
};

template <typename C> __device__ conv_tile tile_of(int i, const conv_args &a)
{
    conv_tile t;
    t.n0 = i % a.outputs * C::TN;
    i /= a.outputs;
    int part = i % a.parts;
    t.px = part % 2;
    t.py = part / 2;
    i /= a.parts;
    t.x = i % a.columns * kWide;
    i /= a.columns;
    t.y = i % a.lines * C::HIGH;
    t.image = i / a.lines;
    return t;
}

/* How far neighbour k of 0, 1, 2 lies in x from a pixel of y, odd or even. */
__device__ int offset(int k, int odd, int up) { return up ? (odd + k - 1) >> 1 : k - 1; }

/* The first of a block's tiles, and the only one where a cluster takes it. */
template <typename C> __device__ int first_tile()
{
    return C::SHARES ? blockIdx.x / kShares : blockIdx.x;
}

/* Runs of channels that are the block's. */
struct run_range {
    int from, to;
};
template <typename C> __device__ run_range runs_of(const conv_args &a)
{
    int share = blockIdx.x % kShares;
    if (!C::SHARES)
        return {0, a.chunks};
    return {a.chunks * share / kShares, a.chunks * (share + 1) / kShares};
}

template <typename C> struct conv_ring {
    char *x, *w;
    uint64_t *x_full, *x_empty, *w_full, *w_empty;
    int box, box_parity, tap, tap_parity;

    __device__ conv_ring(char *raw) : box(0), box_parity(0), tap(0), tap_parity(0)
    {
        x = (char *)(((uintptr_t)raw + 1023) & ~(uintptr_t)1023);
        w = x + C::BOXES * C::BOX;
        x_full = (uint64_t *)(x + C::RINGS);
        x_empty = x_full + C::BOXES;
        w_full = x_empty + C::BOXES;
        w_empty = w_full + C::TAPS;
    }
    __device__ void init()
    {
        for (int i = 0; i < C::BOXES; i++) {
            barrier_init(&x_full[i], 1);
            barrier_init(&x_empty[i], C::GROUPS);
        }
        for (int i = 0; i < C::TAPS; i++) {
            barrier_init(&w_full[i], 1);
            barrier_init(&w_empty[i], C::GROUPS);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __device__ void next_box()
    {
        box_parity ^= box == C::BOXES - 1;
        box = box == C::BOXES - 1 ? 0 : box + 1;
    }
    __device__ void next_tap()
    {
        tap_parity ^= tap == C::TAPS - 1;
        tap = tap == C::TAPS - 1 ? 0 : tap + 1;
    }
    __device__ char *box_place() const { return x + box * C::BOX; }
    __device__ char *tap_place() const { return w + tap * C::TAP; }
};

/* --- the feeding threads, each of a warp of its own. Taps are in the order of runs of channels,
 * columns v, parts x of the pixels, x + 1 parts w of the weights, rows u. --- */

/* The kernel before may still run: nobody writes weights. */
template <typename C>
__device__ void feed_weights(conv_ring<C> r, const CUtensorMap *mw, const conv_args &a)
{
    const run_range runs = runs_of<C>(a);
    prefetch_map(mw);
    for (int i = first_tile<C>(); i < a.tiles; i += gridDim.x) {
        int n0 = tile_of<C>(i, a).n0;
        for (int column = 3 * runs.from; column < 3 * runs.to; column++)
            for (int x = 0; x < C::PARTS; x++)
                for (int w = C::PARTS - 1 - x; w < C::PARTS; w++) {
                    int k = (column / 3 * C::PARTS + w) * kDeep, v = column % 3;
#pragma unroll
                    for (int u = 0; u < 3; u++, r.next_tap()) {
                        barrier_wait(&r.w_empty[r.tap], r.tap_parity ^ 1);
                        barrier_expect(&r.w_full[r.tap], C::TAP);
                        copy_box(r.tap_place(), mw, &r.w_full[r.tap], k, 3 * u + v, n0, kEvictLast);
                    }
                }
    }
}

template <typename C>
__device__ void feed_pixels(conv_ring<C> r, const CUtensorMap *mx, const conv_args &a)
{
    const run_range runs = runs_of<C>(a);
    prefetch_map(mx);
    wait_for_previous();
    for (int i = first_tile<C>(); i < a.tiles; i += gridDim.x) {
        conv_tile t = tile_of<C>(i, a);
        for (int run = runs.from; run < runs.to; run++)
            for (int v = 0; v < 3; v++)
                for (int x = 0; x < C::PARTS; x++, r.next_box()) {
                    barrier_wait(&r.x_empty[r.box], r.box_parity ^ 1);
                    barrier_expect(&r.x_full[r.box], C::BOX);
                    copy_box(r.box_place(), mx, &r.x_full[r.box], (run * C::PARTS + x) * kDeep,
                             t.x + offset(v, t.px, a.up), t.y - 1, t.image, kEvictLast);
                }
    }
}

/* --- the multiplying warpgroups --- */

/* What a warpgroup has multiplied last: free once the next products are under way. */
template <typename C> struct conv_used {
    int tap, box; /* -1: none */

    __device__ void release(const conv_ring<C> &r)
    {
        if (threadIdx.x % 128)
            return;
        barrier_arrive(&r.w_empty[tap]);
        if (box >= 0)
            barrier_arrive(&r.x_empty[box]);
    }
};

/* One sum, of so many columns. d[m]: pixels [64 m, + 64) of the warpgroup's; line[u]: where they
 * begin in a box, in units of a descriptor. */
template <typename C>
__device__ void sum_columns(conv_ring<C> &r, int columns, const int (&line)[3],
                            float (&d)[2][C::TN / 2])
{
    conv_used<C> used = {-1, -1};
    for (int column = 0; column < columns; column++)
#pragma unroll 1
        for (int part = 0; part < C::PARTS; part++, r.next_box()) {
            barrier_wait(&r.x_full[r.box], r.box_parity);
            uint64_t box = describe(r.box_place());
#pragma unroll 1
            for (int pair = 0; pair <= part; pair++)
#pragma unroll
                for (int u = 0; u < 3; u++, r.next_tap()) {
                    barrier_wait(&r.w_full[r.tap], r.tap_parity);
                    uint64_t x = box + line[u], w = describe(r.tap_place());
                    fence_registers(d[0]);
                    fence_registers(d[1]);
                    multiply_begin();
#pragma unroll
                    for (int step = 0; step < 4; step++) { /* 32 bytes: 2 units of a descriptor */
                        bool more = used.tap >= 0 || step > 0;
                        wgmma<C::TN, false>::run(d[0], x + 2 * step, w + 2 * step, more);
                        wgmma<C::TN, false>::run(d[1], x + kHalf + 2 * step, w + 2 * step, more);
                    }
                    multiply_commit();
                    fence_registers(d[0]);
                    fence_registers(d[1]);
                    if (used.tap >= 0) {
                        multiply_wait<1>();
                        used.release(r);
                    }
                    used = {r.tap, u == 2 && pair == part ? r.box : -1};
                }
        }
    multiply_wait<0>();
    fence_registers(d[0]);
    fence_registers(d[1]);
    used.release(r);
}

/* In thirds a sum of the sums of 64 channels and a column of the kernel, which are too short for
 * the bits that the multiplier cuts off to matter. */
template <typename C>
__device__ void sum_tile(conv_ring<C> &r, const conv_args &a, const conv_tile &t,
                         float (&d)[2][C::TN / 2])
{
    const run_range runs = runs_of<C>(a);
    int columns = 3 * (runs.to - runs.from), line[3];
#pragma unroll
    for (int u = 0; u < 3; u++)
        line[u] = (1 + (int)threadIdx.x / 128 * kHigh + offset(u, t.py, a.up)) * (kLine / 16);
    if constexpr (C::PARTS == 1) {
        sum_columns(r, columns, line, d);
    } else {
        float sum[2][C::TN / 2];
        for (int k = 0; k < columns; k++) {
            sum_columns(r, 1, line, sum);
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int j = 0; j < C::TN / 2; j++)
                    d[m][j] = k ? d[m][j] + sum[m][j] : sum[m][j];
        }
    }
}

/* The sums of a thread by its pixels: v[2 m + h] are those of pixel h of half m. */
template <int TN> __device__ void by_pixel(float (&v)[4][TN / 4], const float (&d)[2][TN / 2])
{
#pragma unroll
    for (int p = 0; p < 4; p++)
#pragma unroll
        for (int i = 0; i < TN / 4; i++)
            v[p][i] = d[p / 2][i / 2 * 4 + 2 * (p % 2) + i % 2];
}

/* The same place in another block of the cluster, and what lies there: after they met. */
__device__ uint32_t address_at(const void *p, int block)
{
    uint32_t there;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
                 : "=r"(there)
                 : "r"(address(p)), "r"(block));
    return there;
}
__device__ float4 load_from_cluster(uint32_t at)
{
    float4 v;
    asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(at)
                 : "memory");
    return v;
}

/* All threads of a cluster meet; those of a warp first, of which one may have been feeding. */
__device__ void meet()
{
    __syncwarp();
    cluster_sync();
}

/* The blocks of a cluster share out the pixels of its tile, one of four to each thread: all leave
 * their sums in shared memory for one another, `place`, and each adds up those of its pixels, in
 * the order of the shares. Nothing is fetched or multiplied there any more. */
template <int TN>
__device__ void join(float (&out)[1][TN / 4], const float (&v)[4][TN / 4], char *place)
{
    constexpr int FOURS = TN / 16; /* float4s of a pixel */
    float4 *mine = (float4 *)place + threadIdx.x;
    asm volatile("bar.sync 1, 128;" ::: "memory"); /* all four warps have done multiplying */
#pragma unroll
    for (int p = 0; p < 4; p++)
#pragma unroll
        for (int k = 0; k < FOURS; k++)
            mine[(p * FOURS + k) * 128] =
                make_float4(v[p][4 * k], v[p][4 * k + 1], v[p][4 * k + 2], v[p][4 * k + 3]);
    meet();
    uint32_t from[kShares];
#pragma unroll
    for (int b = 0; b < kShares; b++)
        from[b] = address_at(mine + blockIdx.x % kShares * FOURS * 128, b);
#pragma unroll
    for (int k = 0; k < FOURS; k++) {
        float4 q[kShares];
#pragma unroll
        for (int b = 0; b < kShares; b++)
            q[b] = load_from_cluster(from[b] + k * 128 * sizeof(float4));
        out[0][4 * k] = q[0].x + q[1].x + q[2].x + q[3].x;
        out[0][4 * k + 1] = q[0].y + q[1].y + q[2].y + q[3].y;
        out[0][4 * k + 2] = q[0].z + q[1].z + q[2].z + q[3].z;
        out[0][4 * k + 3] = q[0].w + q[1].w + q[2].w + q[3].w;
    }
}

/* Tile i from its first product to its pixels. */
template <typename C> __device__ void multiply(conv_ring<C> &r, const conv_args &a, int i)
{
    typedef typename C::T T;
    float d[2][C::TN / 2], v[4][C::TN / 4];
    conv_tile t = tile_of<C>(i, a);
    sum_tile(r, a, t, d);
    by_pixel<C::TN>(v, d);
    t.y += threadIdx.x / 128 * kHigh;
    if constexpr (C::SHARES) {
        float sum[1][C::TN / 4];
        join<C::TN>(sum, v, r.x);
        T *const to[1] = {pixel_of<T>(a, t, blockIdx.x % kShares)};
        store_pixels<T, C::TN, 1>(sum, to, t.n0, a);
    } else {
        T *const to[4] = {pixel_of<T>(a, t, 0), pixel_of<T>(a, t, 1), pixel_of<T>(a, t, 2),
                          pixel_of<T>(a, t, 3)};
        store_pixels<T, C::TN, 4>(v, to, t.n0, a);
    }
}

template <typename C>
__global__ void __launch_bounds__(C::THREADS, C::BLOCKS)
    conv(const __grid_constant__ CUtensorMap mx, const __grid_constant__ CUtensorMap mw,
         const __grid_constant__ conv_args a)
{
#if __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ char raw[];
    conv_ring<C> r(raw);
    if (threadIdx.x == 0)
        r.init();
    __syncthreads();
    let_next_start();
    if (threadIdx.x >= 128 * C::GROUPS) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 128 * C::GROUPS)
            feed_weights(r, &mw, a);
        else if (threadIdx.x == 128 * C::GROUPS + 32)
            feed_pixels(r, &mx, a);
        if (C::SHARES) {
            meet(); /* in join() */
            meet(); /* as below */
        }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(C::GROUPS == 2 ? 232 : 216));
        wait_for_previous();
        if constexpr (C::SHARES) {
            multiply(r, a, first_tile<C>());
            meet(); /* the others may still read what this block has left them */
        } else {
            for (int i = blockIdx.x; i < a.tiles; i += gridDim.x)
                multiply(r, a, i);
        }
    }
#endif
}

/* --- launching --- */

tt_status encode(const cuda *c, CUtensorMap *map, const void *data, int rank,
                 const cuuint64_t *dim, const cuuint64_t *stride, const cuuint32_t *box, tt_err *e)
{
    static const cuuint32_t step[4] = {1, 1, 1, 1};
    CUresult code = c->encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, (cuuint32_t)rank,
                              (void *)(uintptr_t)data, dim, stride, box, step,
                              CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                              CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                              CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (code != CUDA_SUCCESS)
        return tt_fail(e, TT_EINVAL, "conv3x3: no tensor map of %lld channels (%d)",
                       (long long)dim[0], (int)code);
    return TT_OK;
}

/* All parts of a channel's number. */
int64_t stored_channels(const cuda_conv *v)
{
    return v->shape->channels * (v->w->thirds ? 3 : 1);
}

tt_status encode_pixels(const cuda *c, CUtensorMap *map, const cuda_conv *v, const conv_args &a,
                        int high, tt_err *e)
{
    const cuuint64_t line = (cuuint64_t)v->ldx * 2;
    const cuuint64_t dim[4] = {(cuuint64_t)stored_channels(v), (cuuint64_t)a.width,
                               (cuuint64_t)a.height, (cuuint64_t)v->shape->images};
    const cuuint64_t stride[3] = {line, line * dim[1], line * dim[1] * dim[2]};
    const cuuint32_t box[4] = {kDeep, kWide, (cuuint32_t)high + 2, 1};
    return encode(c, map, v->x, 4, dim, stride, box, e);
}

tt_status encode_weights(const cuda *c, CUtensorMap *map, const cuda_conv *v, int rows, tt_err *e)
{
    const cuuint64_t channels = (cuuint64_t)stored_channels(v);
    const cuuint64_t dim[3] = {channels, 9, (cuuint64_t)v->w->n};
    const cuuint64_t stride[2] = {channels * 2, (cuuint64_t)v->w->kp * 2};
    const cuuint32_t box[3] = {kDeep, 1, (cuuint32_t)rows};
    return encode(c, map, v->w->data, 3, dim, stride, box, e);
}

/* Tiles of `high` lines of all images. */
int64_t pixel_tiles(const conv_args &a, int64_t images, int high)
{
    return images * a.parts * a.columns * ((a.height + high - 1) / high);
}

template <typename C> tt_status run(cuda *c, const cuda_conv *v, conv_args a, tt_err *e)
{
    if (!cuda_runs(c))
        return TT_OK;
    CUtensorMap mx, mw;
    a.lines = (a.height + C::HIGH - 1) / C::HIGH;
    a.outputs = (a.n + C::TN - 1) / C::TN;
    int64_t tiles = pixel_tiles(a, v->shape->images, C::HIGH) * a.outputs;
    if (tiles > INT32_MAX / kShares)
        return tt_fail(e, TT_EINVAL, "conv3x3: %lld tiles", (long long)tiles);
    a.tiles = (int)tiles;
    tt_status st = encode_pixels(c, &mx, v, a, C::HIGH, e);
    if (!st)
        st = encode_weights(c, &mw, v, C::TN, e);
    static uint64_t allowed;
    if (!st)
        st = allow_shared(c, &allowed, conv<C>, C::BYTES, "conv3x3", e);
    int64_t most = (int64_t)C::BLOCKS * c->sms;
    int64_t grid = C::SHARES ? kShares * tiles : tiles < most ? tiles : most;
    return st ? st
              : launch_clusters(c, "conv3x3", conv<C>, (unsigned)grid, C::THREADS, C::BYTES,
                                C::SHARES ? kShares : 1, e, mx, mw, a);
}

/* Time of a kernel, roughly, in cycles: for 64 inputs its products or what shared memory and the
 * L2 take, whichever is longer, and what starting and ending a tile costs. */
template <typename C> int64_t cost(const cuda *c, const conv_args &a, int64_t images)
{
    constexpr int shares = C::SHARES ? kShares : 1;
    constexpr int wide = C::GROUPS == 2 ? 1050 : 610, half = C::GROUPS == 2 ? 610 : 400;
    constexpr int tap = C::TN == 128 ? wide : C::TN == 64 ? half : 285;
    constexpr int ends = C::SHARES ? 3000 : C::GROUPS == 2 ? 2500 : 1500;
    int64_t tiles = pixel_tiles(a, images, C::HIGH) * ((a.n + C::TN - 1) / C::TN) * shares;
    return (tiles + c->sms - 1) / c->sms * ((int64_t)a.chunks * C::RUN * tap / shares + ends);
}

conv_args arguments(const cuda_conv *v)
{
    const tt_image_shape *p = v->shape;
    conv_args a = {};
    a.y = v->y;
    a.ldy = v->ldy;
    a.up = p->up;
    a.height = (int)(p->height >> a.up);
    a.width = (int)(p->width >> a.up);
    a.parts = p->up ? 4 : 1;
    a.chunks = (int)((p->channels + kDeep - 1) / kDeep);
    a.n = (int)v->w->n;
    a.columns = (a.width + kWide - 1) / kWide;
    a.scale = v->w->scale;
    a.bias = v->w->bias;
    a.add = v->add;
    a.vector = aligned16(v->y) && v->ldy % 8 == 0 && a.n % 8 == 0;
    return a;
}

/* Whether sums are made of shares: a property of the matrix and of the size of an image, never of
 * how many there are. */
bool shared_out(const conv_args &a)
{
    return a.chunks >= kShares && pixel_tiles(a, 1, kHigh) <= kFewTiles;
}

template <bool SHARES>
tt_status run_narrow(cuda *c, const cuda_conv *v, const conv_args &a, tt_err *e)
{
    typedef cut_of<bf16, 128, 1, SHARES> wide;
    typedef cut_of<bf16, 64, 1, SHARES> half;
    typedef cut_of<bf16, 32, 1, SHARES> quarter;
    int64_t images = v->shape->images, of_wide = cost<wide>(c, a, images);
    int64_t of_half = cost<half>(c, a, images), of_quarter = cost<quarter>(c, a, images);
    if constexpr (!SHARES) {
        typedef cut_of<bf16, 128, 2, false> tall;
        int64_t of_tall = cost<tall>(c, a, images);
        if (of_tall < of_wide && of_tall < of_half && of_tall < of_quarter)
            return run<tall>(c, v, a, e);
    }
    if (of_wide <= of_half && of_wide <= of_quarter)
        return run<wide>(c, v, a, e);
    return of_half <= of_quarter ? run<half>(c, v, a, e) : run<quarter>(c, v, a, e);
}

template <bool SHARES>
tt_status run_thirds(cuda *c, const cuda_conv *v, const conv_args &a, tt_err *e)
{
    typedef cut_of<float, 64, 1, SHARES> half;
    typedef cut_of<float, 32, 1, SHARES> quarter;
    int64_t images = v->shape->images;
    int64_t of_half = cost<half>(c, a, images), of_quarter = cost<quarter>(c, a, images);
    if constexpr (!SHARES) {
        typedef cut_of<float, 64, 2, false> tall;
        int64_t of_tall = cost<tall>(c, a, images);
        if (of_tall < of_half && of_tall < of_quarter)
            return run<tall>(c, v, a, e);
    }
    return of_half <= of_quarter ? run<half>(c, v, a, e) : run<quarter>(c, v, a, e);
}

} // namespace

bool cuda_conv_hopper_fits(const cuda_conv *v)
{
    return v->shape->channels % 8 == 0 && v->ldx % 8 == 0 && aligned16(v->x) &&
           v->ldx < (int64_t)1 << 32;
}

tt_status cuda_conv_hopper(cuda *c, const cuda_conv *v, tt_err *e)
{
    conv_args a = arguments(v);
    return shared_out(a) ? run_narrow<true>(c, v, a, e) : run_narrow<false>(c, v, a, e);
}

/* Images are independent: cut and convolved some at a time. */
tt_status cuda_conv_hopper_thirds(cuda *c, const cuda_conv *v, tt_err *e)
{
    const tt_image_shape *p = v->shape;
    int64_t from = (p->height >> p->up) * (p->width >> p->up); /* pixels of an image of x */
    int64_t most = cuda_thirds_at_once(p->channels) / from;
    tt_status st = TT_OK;
    most = most > 1 ? most : 1;
    for (int64_t i = 0; i < p->images && !st; i += most) {
        tt_image_shape some = *p;
        cuda_conv part = *v;
        some.images = p->images - i < most ? p->images - i : most;
        part.shape = &some;
        part.ldx = 3 * p->channels;
        part.y = (float *)v->y + i * p->height * p->width * v->ldy;
        st = cuda_cut_thirds(c, &part.x, (const float *)v->x + i * from * v->ldx, v->ldx,
                             some.images * from, p->channels, e);
        if (st)
            break;
        conv_args a = arguments(&part);
        st = shared_out(a) ? run_thirds<true>(c, &part, a, e) : run_thirds<false>(c, &part, a, e);
    }
    return st;
}
