/* conv_hopper.cu - 3x3 convolution of bfloat16 on Hopper as a product by wgmma.
 *
 * A tile is 8 x 16 pixels by TN outputs. For 64 channels and one column v of the kernel, one bulk
 * copy brings the tile's pixels moved by v - 1 and a line more above and below (zeros outside the
 * image): the three taps of that column then are the same rows of shared memory from line 0, 1 and
 * 2 on, and a line is 1,024 bytes, the unit of the swizzle. So x is read 3 * 18 / 16 times instead
 * of 9. Weights come tap by tap. Sums go over channels in runs of 64, then v, then u, whatever the
 * tile: neither its size nor the number of images changes a bit.
 *
 * Where x is to be enlarged first, the pixels of a tile are those of y whose coordinates are odd or
 * even alike: their neighbours (u, v) are the pixels of x itself moved by 0 or 1.
 *
 * Two blocks share a multiprocessor: while one writes its tile, the other multiplies. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/hopper.cuh"

namespace {

using namespace hopper;

constexpr int kWide = 8, kHigh = 16, kDeep = 64; /* pixels of a tile, channels at a time */
constexpr int kLine = kWide * kDeep * 2, kBox = (kHigh + 2) * kLine; /* bytes */
constexpr int kBoxes = 2;                        /* ring of pixels */
constexpr int kThreads = 256;                    /* a warpgroup that multiplies, one that feeds */
constexpr int kHalf = 64 * kDeep * 2 / 16;       /* 64 pixels in units of a descriptor */

/* Ring of taps of the weights: TN rows of 128 bytes each. */
template <int TN> __host__ __device__ constexpr int taps() { return TN == 128 ? 4 : 8; }
template <int TN> constexpr size_t shared_bytes()
{
    return 1024 + kBoxes * kBox + taps<TN>() * TN * kDeep * 2 + (kBoxes + taps<TN>()) * 16;
}
static_assert(2 * (shared_bytes<128>() + 1024) <= 228 << 10, "two blocks do not fit");

struct conv_args {
    bf16 *y;
    int64_t ldy;
    int height, width;           /* of x, as it is stored */
    int up, parts;               /* parts: 4 with up, kinds of pixels of y */
    int chunks, n;               /* runs of kDeep channels; outputs */
    int columns, lines, outputs; /* tiles of an image, of the outputs */
    int tiles;
    const float *scale, *bias;
    bool add, vector; /* vector: y takes 16-byte accesses */
};

/* What a block does next. */
struct conv_tile {
    int n0, image, x, y; /* first output; first pixel, of x */
    int px, py;          /* with up: whether y's coordinates are odd */
};

__device__ conv_tile tile_of(int i, const conv_args &a)
{
    conv_tile t;
    t.n0 = i % a.outputs;
    i /= a.outputs;
    int part = i % a.parts;
    t.px = part % 2;
    t.py = part / 2;
    i /= a.parts;
    t.x = i % a.columns * kWide;
    i /= a.columns;
    t.y = i % a.lines * kHigh;
    t.image = i / a.lines;
    return t;
}

/* How far neighbour k of 0, 1, 2 lies in x from a pixel of y, odd or even. */
__device__ int offset(int k, int odd, int up) { return up ? (odd + k - 1) >> 1 : k - 1; }

template <int TN> struct conv_ring {
    static constexpr int TAPS = taps<TN>();
    char *x, *w;
    uint64_t *x_full, *x_empty, *w_full, *w_empty;
    int box, box_parity, tap, tap_parity;

    __device__ conv_ring(char *raw) : box(0), box_parity(0), tap(0), tap_parity(0)
    {
        x = (char *)(((uintptr_t)raw + 1023) & ~(uintptr_t)1023);
        w = x + kBoxes * kBox;
        x_full = (uint64_t *)(w + TAPS * TN * kDeep * 2);
        x_empty = x_full + kBoxes;
        w_full = x_empty + kBoxes;
        w_empty = w_full + TAPS;
    }
    __device__ void next_box()
    {
        box_parity ^= box == kBoxes - 1;
        box = box == kBoxes - 1 ? 0 : box + 1;
    }
    __device__ void next_tap()
    {
        tap_parity ^= tap == TAPS - 1;
        tap = tap == TAPS - 1 ? 0 : tap + 1;
    }
    __device__ char *tap_place(int i) const { return w + i * TN * kDeep * 2; }
};

/* --- the feeding thread --- */

template <int TN>
__device__ void fetch_tap(const conv_ring<TN> &r, const CUtensorMap *mw, int at, int i, int n0)
{
    int u = i % 3, v = i / 3 % 3;
    barrier_expect(&r.w_full[at], TN * kDeep * 2);
    copy_box(r.tap_place(at), mw, &r.w_full[at], i / 9 * kDeep, 3 * u + v, n0, kEvictLast);
}

/* The first weights are fetched before the kernel before is done. */
template <int TN>
__device__ void feed(conv_ring<TN> r, const CUtensorMap *mx, const CUtensorMap *mw,
                     const conv_args &a)
{
    constexpr int EARLY = taps<TN>() < 9 ? taps<TN>() : 9;
    int done = 0;
    prefetch_map(mw);
    prefetch_map(mx);
    for (int i = 0; i < EARLY; i++)
        fetch_tap(r, mw, i, i, tile_of(blockIdx.x, a).n0 * TN);
    wait_for_previous();
    for (int i = blockIdx.x; i < a.tiles; i += gridDim.x) {
        conv_tile t = tile_of(i, a);
        for (int k = 0; k < a.chunks * 9; k++, done++) {
            if (k % 3 == 0) {
                barrier_wait(&r.x_empty[r.box], r.box_parity ^ 1);
                barrier_expect(&r.x_full[r.box], kBox);
                copy_box(r.x + r.box * kBox, mx, &r.x_full[r.box], k / 9 * kDeep,
                         t.x + offset(k / 3 % 3, t.px, a.up), t.y - 1, t.image, kEvictLast);
                r.next_box();
            }
            if (done >= EARLY) {
                barrier_wait(&r.w_empty[r.tap], r.tap_parity ^ 1);
                fetch_tap(r, mw, r.tap, k, t.n0 * TN);
            }
            r.next_tap();
        }
    }
}

/* --- the multiplying warpgroup --- */

/* d[m]: pixels [64 m, + 64) of the tile. */
template <int TN>
__device__ void sum_tile(conv_ring<TN> &r, const conv_args &a, const conv_tile &t,
                         float (&d)[2][TN / 2])
{
    int last_tap = -1, last_box = -1;
    for (int k = 0; k < a.chunks * 9; k++) {
        if (k % 3 == 0)
            barrier_wait(&r.x_full[r.box], r.box_parity);
        barrier_wait(&r.w_full[r.tap], r.tap_parity);
        int line = 1 + offset(k % 3, t.py, a.up);
        uint64_t x = describe(r.x + r.box * kBox + line * kLine);
        uint64_t w = describe(r.tap_place(r.tap));
        fence_registers(d[0]);
        fence_registers(d[1]);
        multiply_begin();
#pragma unroll
        for (int step = 0; step < 4; step++) { /* 32 bytes are 2 units of a descriptor */
            wgmma<TN, false>::run(d[0], x + 2 * step, w + 2 * step, k > 0 || step > 0);
            wgmma<TN, false>::run(d[1], x + kHalf + 2 * step, w + 2 * step, k > 0 || step > 0);
        }
        multiply_commit();
        fence_registers(d[0]);
        fence_registers(d[1]);
        if (last_tap >= 0) {
            multiply_wait<1>(); /* the tap before is done: its places are free */
            if (threadIdx.x == 0) {
                barrier_arrive(&r.w_empty[last_tap]);
                if (last_box >= 0)
                    barrier_arrive(&r.x_empty[last_box]);
            }
        }
        last_tap = r.tap;
        last_box = k % 3 == 2 ? r.box : -1;
        r.next_tap();
        if (k % 3 == 2)
            r.next_box();
    }
    multiply_wait<0>();
    fence_registers(d[0]);
    fence_registers(d[1]);
    if (threadIdx.x == 0) {
        barrier_arrive(&r.w_empty[last_tap]);
        barrier_arrive(&r.x_empty[last_box]);
    }
}

/* Where the thread's pixel of half m and h of 0, 1 goes; NULL outside the image. */
__device__ bf16 *pixel_of(const conv_args &a, const conv_tile &t, int m, int h)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int x = t.x + lane / 4, y = t.y + 8 * m + 2 * warp + h;
    if (x >= a.width || y >= a.height)
        return nullptr;
    x = (x << a.up) + t.px;
    y = (y << a.up) + t.py;
    return a.y + (((int64_t)t.image * (a.height << a.up) + y) * (a.width << a.up) + x) * a.ldy;
}

/* v[2 j + c]: column 8 j + 2 (lane % 4) + c of 32 from col on. */
__device__ void store_single(bf16 *to, const float (&v)[8], int col, const conv_args &a)
{
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int at = col + i / 2 * 8 + 2 * (threadIdx.x % 4) + i % 2;
        if (to && at < a.n)
            put(&to[at], a.add ? v[i] + get(to[at]) : v[i]);
    }
}

/* old: eight of y from column col + 8 (lane % 4) on. */
__device__ void store_eight(bf16 *to, const float (&v)[8], uint4 old, int col, const conv_args &a)
{
    int mine = col + 8 * (threadIdx.x % 4);
    uint32_t p[4] = {old.x, old.y, old.z, old.w};
    if (a.add)
        transpose_quad(p);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float2 more = unpack2(p[j]);
        p[j] = pack2(v[2 * j] + more.x, v[2 * j + 1] + more.y);
    }
    transpose_quad(p);
    if (to && mine < a.n) /* widths are multiples of 8 here */
        *reinterpret_cast<uint4 *>(to + mine) = make_uint4(p[0], p[1], p[2], p[3]);
}

/* Scale and bias of the thread's eight columns of 32. */
__device__ void load_columns(float (&scale)[8], float (&bias)[8], int col, const conv_args &a)
{
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int at = col + i / 2 * 8 + 2 * (threadIdx.x % 4) + i % 2;
        scale[i] = a.scale && at < a.n ? a.scale[at] : 1.0f;
        bias[i] = a.bias && at < a.n ? a.bias[at] : 0.0f;
    }
}

template <int TN>
__device__ void store_tile(const float (&d)[2][TN / 2], const conv_args &a, const conv_tile &t)
{
    bf16 *const to[4] = {pixel_of(a, t, 0, 0), pixel_of(a, t, 0, 1), pixel_of(a, t, 1, 0),
                         pixel_of(a, t, 1, 1)};
#pragma unroll
    for (int q = 0; q < TN / 32; q++) {
        int col = t.n0 * TN + 32 * q;
        float scale[8], bias[8];
        uint4 old[4];
        load_columns(scale, bias, col, a);
#pragma unroll
        for (int p = 0; p < 4; p++) { /* all loads before the first use */
            int mine = col + 8 * (threadIdx.x % 4);
            old[p] = make_uint4(0, 0, 0, 0);
            if (a.add && a.vector && to[p] && mine < a.n)
                old[p] = *reinterpret_cast<const uint4 *>(to[p] + mine);
        }
#pragma unroll
        for (int p = 0; p < 4; p++) {
            float v[8];
#pragma unroll
            for (int i = 0; i < 8; i++)
                v[i] = d[p / 2][4 * (4 * q + i / 2) + 2 * (p % 2) + i % 2] * scale[i] + bias[i];
            if (a.vector)
                store_eight(to[p], v, old[p], col, a);
            else
                store_single(to[p], v, col, a);
        }
    }
}

template <int TN>
__global__ void __launch_bounds__(kThreads, 2)
    conv(const __grid_constant__ CUtensorMap mx, const __grid_constant__ CUtensorMap mw,
         const __grid_constant__ conv_args a)
{
#if __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ char raw[];
    conv_ring<TN> r(raw);
    if (threadIdx.x == 0) {
        for (int i = 0; i < kBoxes; i++) {
            barrier_init(&r.x_full[i], 1);
            barrier_init(&r.x_empty[i], 1);
        }
        for (int i = 0; i < taps<TN>(); i++) {
            barrier_init(&r.w_full[i], 1);
            barrier_init(&r.w_empty[i], 1);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    let_next_start();
    if (threadIdx.x >= 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 128)
            feed<TN>(r, &mx, &mw, a);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 216;");
        wait_for_previous();
        for (int i = blockIdx.x; i < a.tiles; i += gridDim.x) {
            float d[2][TN / 2];
            conv_tile t = tile_of(i, a);
            sum_tile<TN>(r, a, t, d);
            store_tile<TN>(d, a, t);
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

tt_status encode_pixels(const cuda *c, CUtensorMap *map, const cuda_conv *v, const conv_args &a,
                        tt_err *e)
{
    const cuuint64_t line = (cuuint64_t)v->ldx * 2;
    const cuuint64_t dim[4] = {(cuuint64_t)v->shape->channels, (cuuint64_t)a.width,
                               (cuuint64_t)a.height, (cuuint64_t)v->shape->images};
    const cuuint64_t stride[3] = {line, line * dim[1], line * dim[1] * dim[2]};
    const cuuint32_t box[4] = {kDeep, kWide, kHigh + 2, 1};
    return encode(c, map, v->x, 4, dim, stride, box, e);
}

tt_status encode_weights(const cuda *c, CUtensorMap *map, const cuda_conv *v, int rows, tt_err *e)
{
    const cuuint64_t channels = (cuuint64_t)v->shape->channels;
    const cuuint64_t dim[3] = {channels, 9, (cuuint64_t)v->w->n};
    const cuuint64_t stride[2] = {channels * 2, (cuuint64_t)v->w->kp * 2};
    const cuuint32_t box[3] = {kDeep, 1, (cuuint32_t)rows};
    return encode(c, map, v->w->data, 3, dim, stride, box, e);
}

int64_t pixel_tiles(const conv_args &a, int64_t images)
{
    return images * a.parts * a.columns * a.lines;
}

template <int TN> tt_status run(cuda *c, const cuda_conv *v, conv_args a, tt_err *e)
{
    if (!cuda_runs(c))
        return TT_OK;
    CUtensorMap mx, mw;
    a.outputs = (a.n + TN - 1) / TN;
    int64_t tiles = pixel_tiles(a, v->shape->images) * a.outputs;
    if (tiles > INT32_MAX)
        return tt_fail(e, TT_EINVAL, "conv3x3: %lld tiles", (long long)tiles);
    a.tiles = (int)tiles;
    tt_status st = encode_pixels(c, &mx, v, a, e);
    if (!st)
        st = encode_weights(c, &mw, v, TN, e);
    static uint64_t allowed;
    if (!st)
        st = allow_shared(c, &allowed, conv<TN>, shared_bytes<TN>(), "conv3x3", e);
    unsigned grid = (unsigned)(tiles < 2 * c->sms ? tiles : 2 * c->sms);
    return st ? st
              : launch(c, "conv3x3", conv<TN>, grid, kThreads, shared_bytes<TN>(), e, mx, mw, a);
}

/* Time with tiles of so many outputs, roughly, in cycles: products or what shared memory and L2
 * take for 16 inputs, whichever is longer, and what starting and ending a tile costs. */
int64_t cost(const cuda *c, const conv_args &a, int64_t images, int outputs)
{
    int64_t tiles = pixel_tiles(a, images) * ((a.n + outputs - 1) / outputs);
    int64_t cycles = outputs == 128 ? 128 : outputs == 64 ? 80 : 57;
    return (tiles + c->sms - 1) / c->sms * (a.chunks * 36 * cycles + 1500);
}

} // namespace

bool cuda_conv_hopper_fits(const cuda_conv *v)
{
    return v->shape->channels % 8 == 0 && v->ldx % 8 == 0 && aligned16(v->x) &&
           v->ldx < (int64_t)1 << 32;
}

tt_status cuda_conv_hopper(cuda *c, const cuda_conv *v, tt_err *e)
{
    const tt_image_shape *p = v->shape;
    conv_args a = {};
    a.y = (bf16 *)v->y;
    a.ldy = v->ldy;
    a.up = p->up;
    a.height = (int)(p->height >> a.up);
    a.width = (int)(p->width >> a.up);
    a.parts = p->up ? 4 : 1;
    a.chunks = (int)((p->channels + kDeep - 1) / kDeep);
    a.n = (int)v->w->n;
    a.columns = (a.width + kWide - 1) / kWide;
    a.lines = (a.height + kHigh - 1) / kHigh;
    a.scale = v->w->scale;
    a.bias = v->w->bias;
    a.add = v->add;
    a.vector = aligned16(v->y) && v->ldy % 8 == 0 && a.n % 8 == 0;
    int64_t wide = cost(c, a, p->images, 128), half = cost(c, a, p->images, 64);
    int64_t narrow = cost(c, a, p->images, 32);
    if (wide <= half && wide <= narrow)
        return run<128>(c, v, a, e);
    return half <= narrow ? run<64>(c, v, a, e) : run<32>(c, v, a, e);
}
