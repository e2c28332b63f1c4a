/* image.cu - operations on images but the convolution: GroupNorm, pooling, vector quantisation. All
 * are memory-bound. */
#include "kernels/cuda/device.cuh"

namespace {

constexpr int kThreads = 256, kMaxChunks = 128, kMaxGroups = 256;

bool bad_image(const tt_image_shape *p)
{
    return p->images < 0 || p->height < 1 || p->width < 1 || p->channels < 1 ||
           p->images > INT32_MAX || p->height > INT32_MAX || p->width > INT32_MAX ||
           p->channels > INT32_MAX || p->height * p->width > INT32_MAX ||
           p->images * p->height > INT32_MAX / p->width;
}

tt_status image_error(const char *op, const tt_image_shape *p, int64_t ld, tt_err *e)
{
    return tt_fail(e, TT_EINVAL,
                   "%s: %lld images of %lld x %lld pixels, %lld channels, stride %lld", op,
                   (long long)p->images, (long long)p->height, (long long)p->width,
                   (long long)p->channels, (long long)ld);
}

/* --- GroupNorm: statistics of chunks of pixels, then chunks merged where they are applied. A
 * thread keeps to kRun channels of one group; sums are taken of differences from its first number
 * and merged in a fixed order (Chan et al., 1979), so the bits depend on the image alone. --- */

struct moments {
    float n, mean, m2; /* m2: sum of squared differences from the mean */
};

__device__ moments merge(moments a, moments b)
{
    if (b.n == 0)
        return a;
    float n = a.n + b.n, d = b.mean - a.mean, share = b.n / n;
    return {n, fmaf(d, share, a.mean), a.m2 + b.m2 + d * d * a.n * share};
}

template <typename T> struct group_args {
    T *y;
    const T *x;
    int64_t ldy, ldx, pixels;
    int channels, groups, chunks, chunk; /* chunk: pixels of one */
    const float *w, *b;
    float eps;
    bool silu;
};

/* A run as it is loaded. A thread has kAhead bytes of them on their way at a time: one image has
 * 128 blocks of statistics, which must keep the L2 busy. */
constexpr int kRun = 4, kAhead = 64;
constexpr int kBlocks = 4; /* on a multiprocessor at a time */

template <typename T> struct raw_run;
template <> struct raw_run<float> {
    typedef float4 type;
};
template <> struct raw_run<bf16> {
    typedef uint2 type;
};
template <typename T> __device__ typename raw_run<T>::type load_run(const T *p)
{
    return *reinterpret_cast<const typename raw_run<T>::type *>(p);
}
__device__ inline void spread(float (&v)[kRun], float4 f)
{
    v[0] = f.x, v[1] = f.y, v[2] = f.z, v[3] = f.w;
}
__device__ inline void spread(float (&v)[kRun], uint2 raw)
{
    v[0] = __uint_as_float(raw.x << 16), v[1] = __uint_as_float(raw.x & 0xFFFF0000u);
    v[2] = __uint_as_float(raw.y << 16), v[3] = __uint_as_float(raw.y & 0xFFFF0000u);
}
__device__ inline void store_run(float *p, const float (&v)[kRun])
{
    *reinterpret_cast<float4 *>(p) = make_float4(v[0], v[1], v[2], v[3]);
}
__device__ inline void store_run(bf16 *p, const float (&v)[kRun])
{
    union {
        bf16 h[kRun];
        uint2 raw;
    } u;
#pragma unroll
    for (int i = 0; i < kRun; i++)
        u.h[i] = __float2bfloat16_rn(v[i]);
    *reinterpret_cast<uint2 *>(p) = u.raw;
}

/* Grid: chunks x images. */
template <typename T>
__global__ void __launch_bounds__(kThreads) group_parts(moments *out, group_args<T> a)
{
    __shared__ moments part[kThreads];
    begin();
    int lanes = a.channels / kRun, lane = threadIdx.x % lanes, step = kThreads / lanes;
    int64_t first = (int64_t)blockIdx.x * a.chunk, last = first + a.chunk;
    last = last < a.pixels ? last : a.pixels;
    const T *x = a.x + blockIdx.y * a.pixels * a.ldx + lane * kRun;
    float sum = 0, square = 0, zero = 0, n = 0;
    constexpr int AHEAD = kAhead / (kRun * sizeof(T));
    for (int64_t r = first + threadIdx.x / lanes; r < last; r += AHEAD * step) {
        typename raw_run<T>::type raw[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; k++) /* all loads before the first use */
            if (r + k * step < last)
                raw[k] = load_run(x + (r + k * step) * a.ldx);
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            if (r + k * step >= last)
                break;
            float v[kRun];
            spread(v, raw[k]);
            zero = n == 0 ? v[0] : zero;
            n += kRun;
#pragma unroll
            for (int i = 0; i < kRun; i++) {
                float d = v[i] - zero;
                sum += d;
                square = fmaf(d, d, square);
            }
        }
    }
    bool whole = (int)threadIdx.x < lanes * step; /* the last threads may have no lane */
    float mean = n > 0 ? sum / n : 0;
    part[threadIdx.x] = {whole ? n : 0, zero + mean, fmaxf(square - sum * mean, 0.0f)};
    __syncthreads();
    int per = lanes / a.groups; /* lanes of a group */
    if ((int)threadIdx.x < a.groups) {
        moments m = {0, 0, 0};
        for (int i = 0; i < step; i++)
            for (int k = 0; k < per; k++)
                m = merge(m, part[i * lanes + threadIdx.x * per + k]);
        out[((int64_t)blockIdx.y * a.chunks + blockIdx.x) * a.groups + threadIdx.x] = m;
    }
}

/* Any number of channels. Grid: groups x images. */
template <typename T>
__global__ void __launch_bounds__(kThreads) group_whole(moments *out, group_args<T> a)
{
    __shared__ moments part[kThreads];
    begin();
    int wide = a.channels / a.groups;
    const T *x = a.x + blockIdx.y * a.pixels * a.ldx + (int64_t)blockIdx.x * wide;
    moments m = {0, 0, 0};
    for (int64_t i = threadIdx.x; i < a.pixels * wide; i += kThreads)
        m = merge(m, {1, get(x[i / wide * a.ldx + i % wide]), 0});
    part[threadIdx.x] = m;
    for (int d = kThreads / 2; d; d >>= 1) {
        __syncthreads();
        if ((int)threadIdx.x < d)
            part[threadIdx.x] = merge(part[threadIdx.x], part[threadIdx.x + d]);
    }
    if (threadIdx.x == 0)
        out[(int64_t)blockIdx.y * a.groups + blockIdx.x] = part[0];
}

/* Mean and inverse deviation of the block's image's groups. Eight threads a group merge every
 * eighth part each, then one another's: there are many blocks, and each does it. */
constexpr int kMergers = 8, kParts = 4; /* kParts: on their way at a time */
__device__ void merge_groups(float *mean, float *inv, const moments *in, int chunks, int groups,
                             float eps)
{
    int mine = threadIdx.x % kMergers;
    for (int g0 = 0; g0 < groups; g0 += kThreads / kMergers) {
        int g = g0 + threadIdx.x / kMergers;
        moments m = {0, 0, 0};
        for (int i0 = mine; i0 < chunks; i0 += kParts * kMergers) {
            moments part[kParts];
#pragma unroll
            for (int k = 0; k < kParts; k++) { /* all loads before the first use */
                int i = i0 + k * kMergers;
                part[k] = {0, 0, 0};
                if (i < chunks && g < groups)
                    part[k] = in[(int64_t)i * groups + g];
            }
#pragma unroll
            for (int k = 0; k < kParts; k++)
                m = merge(m, part[k]);
        }
        for (int d = 1; d < kMergers; d *= 2) {
            moments o = {__shfl_xor_sync(~0u, m.n, d), __shfl_xor_sync(~0u, m.mean, d),
                         __shfl_xor_sync(~0u, m.m2, d)};
            m = mine & d ? merge(o, m) : merge(m, o);
        }
        if (mine == 0 && g < groups) {
            mean[g] = m.mean;
            inv[g] = rsqrtf(m.m2 / m.n + eps);
        }
    }
    __syncthreads();
}

template <typename T>
__device__ float normalised(const group_args<T> &a, float x, float mean, float inv, float weight,
                            float bias)
{
    float v = fmaf((x - mean) * inv, weight, bias);
    return a.silu ? silu(v) : v;
}

/* Grid: chunks of pixels x images. A thread keeps to its channels, as in group_parts. */
template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocks) group_apply(const moments *in, group_args<T> a,
                                                        int64_t chunk)
{
    __shared__ float mean[kMaxGroups], inv[kMaxGroups];
    begin();
    merge_groups(mean, inv, in + (int64_t)blockIdx.y * a.chunks * a.groups, a.chunks, a.groups,
                 a.eps);
    int lanes = a.channels / kRun, step = kThreads / lanes, row = threadIdx.x / lanes;
    int h = threadIdx.x % lanes * kRun;
    float weight[kRun], bias[kRun];
    spread(weight, load_run(a.w + h));
    spread(bias, load_run(a.b + h));
    int64_t first = blockIdx.x * chunk, left = a.pixels - first;
    int end = row < step ? (int)(left < chunk ? left : chunk) : 0; /* the last may have no row */
    const T *x = a.x + (blockIdx.y * a.pixels + first) * a.ldx + h;
    T *y = a.y + (blockIdx.y * a.pixels + first) * a.ldy + h;
    float m = mean[h / (a.channels / a.groups)], i = inv[h / (a.channels / a.groups)];
    constexpr int AHEAD = kAhead / (kRun * sizeof(T));
    for (int r = row; r < end; r += AHEAD * step) {
        typename raw_run<T>::type raw[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; k++) /* all loads before the first use */
            if (r + k * step < end)
                raw[k] = load_run(x + (r + k * step) * a.ldx);
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            if (r + k * step >= end)
                break;
            float v[kRun];
            spread(v, raw[k]);
#pragma unroll
            for (int j = 0; j < kRun; j++)
                v[j] = normalised(a, v[j], m, i, weight[j], bias[j]);
            store_run(y + (r + k * step) * a.ldy, v);
        }
    }
}

/* Any number of channels. Grid: chunks of pixels x images. */
template <typename T>
__global__ void __launch_bounds__(kThreads) group_apply_any(const moments *in, group_args<T> a,
                                                            int64_t chunk)
{
    __shared__ float mean[kMaxGroups], inv[kMaxGroups];
    begin();
    merge_groups(mean, inv, in + (int64_t)blockIdx.y * a.chunks * a.groups, a.chunks, a.groups,
                 a.eps);
    int wide = a.channels / a.groups;
    int64_t first = blockIdx.x * chunk, left = a.pixels - first;
    uint32_t end = (uint32_t)((left < chunk ? left : chunk) * a.channels);
    for (uint32_t t = threadIdx.x; t < end; t += kThreads) {
        int64_t row = blockIdx.y * a.pixels + first + t / (uint32_t)a.channels;
        int h = (int)(t % (uint32_t)a.channels), g = h / wide;
        put(&a.y[row * a.ldy + h],
            normalised(a, get(a.x[row * a.ldx + h]), mean[g], inv[g], a.w[h], a.b[h]));
    }
}

template <typename T> tt_status group_norm(cuda *c, group_args<T> a, int64_t images, tt_err *e)
{
    bool runs = a.channels / a.groups % kRun == 0 && a.channels / kRun <= kThreads &&
                a.ldx % kRun == 0 && a.ldy % kRun == 0 && aligned16(a.x) && aligned16(a.y) &&
                aligned16(a.w) && aligned16(a.b);
    /* As many pixels a block as make kMaxChunks of them, a few at least. */
    int64_t chunk = (a.pixels + kMaxChunks - 1) / kMaxChunks, least = 16;
    a.chunk = (int)(chunk < least ? least : chunk);
    a.chunks = runs ? (int)((a.pixels + a.chunk - 1) / a.chunk) : 1;
    tt_status st = cuda_reserve(c, &c->groups, &c->groups_bytes,
                                (size_t)(images * kMaxChunks * a.groups) * sizeof(moments), e);
    moments *parts = (moments *)c->groups;
    dim3 grid(runs ? a.chunks : a.groups, (unsigned)images);
    if (!st)
        st = launch(c, "group_norm", runs ? group_parts<T> : group_whole<T>, grid, kThreads, 0, e,
                    parts, a);
    /* Some numbers a thread, and no more blocks than run at once, as each puts all the statistics
     * of its image together, up to 49 KB: their number changes no bit here. */
    int64_t some = 8192 / a.channels, each = (int64_t)kBlocks * c->sms / images;
    each = each < 1 ? 1 : each;
    chunk = (a.pixels + each - 1) / each;
    chunk = chunk < some ? some : chunk;
    grid = dim3(blocks(a.pixels, chunk), (unsigned)images);
    return st ? st
              : launch(c, "group_norm", runs ? group_apply<T> : group_apply_any<T>, grid, kThreads,
                       0, e, (const moments *)parts, a, chunk);
}

/* --- pooling --- */

template <typename T>
__global__ void pool_rows(T *y, int64_t ldy, const T *x, int64_t ldx, int64_t width, int channels)
{
    begin();
    int64_t r = blockIdx.x; /* rows of pixels are numbered through all images */
    const T *a = x + (r / width * 4 * width + r % width * 2) * ldx, *b = a + 2 * width * ldx;
    for (int i = threadIdx.x; i < channels; i += blockDim.x)
        put(&y[r * ldy + i],
            0.25f * ((get(a[i]) + get(a[ldx + i])) + (get(b[i]) + get(b[ldx + i]))));
}

/* --- vector quantisation: a block a row, a warp a code at a time --- */

constexpr int kWarps = 8;

struct candidate {
    float best, second;
    int32_t at;
};

__device__ void consider(candidate &c, float d, int32_t k)
{
    if (d < c.best || (d == c.best && k < c.at)) {
        c.second = c.best;
        c.best = d;
        c.at = k;
    } else if (d < c.second) {
        c.second = d;
    }
}

template <typename T>
__global__ void __launch_bounds__(kWarps * 32) nearest_rows(int32_t *id, float *distance,
                                                            const T *x, int64_t ldx,
                                                            const float *code, int codes, int dim)
{
    __shared__ candidate part[kWarps];
    begin();
    const T *row = x + blockIdx.x * ldx;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    candidate c = {INFINITY, INFINITY, INT32_MAX};
    for (int k = warp; k < codes; k += kWarps) {
        const float *e = code + (int64_t)k * dim;
        float sum = 0;
        for (int i = lane; i < dim; i += 32) {
            float d = get(row[i]) - e[i];
            sum = fmaf(d, d, sum);
        }
        consider(c, warp_sum(sum), k);
    }
    if (lane == 0)
        part[warp] = c;
    __syncthreads();
    if (threadIdx.x)
        return;
    for (int w = 1; w < kWarps; w++) {
        candidate o = part[w];
        if (o.at == INT32_MAX)
            continue;
        consider(c, o.best, o.at);
        c.second = fminf(c.second, o.second);
    }
    id[blockIdx.x] = c.at == INT32_MAX ? 0 : c.at;
    if (distance) {
        distance[2 * (int64_t)blockIdx.x] = c.best;
        distance[2 * (int64_t)blockIdx.x + 1] = c.second;
    }
}

} // namespace

extern "C" tt_status tt_cuda_group_norm(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                        int64_t ldx, const float *w, const float *b, int64_t images,
                                        int64_t pixels, int64_t channels, int64_t groups, float eps,
                                        bool silu, tt_err *e)
{
    cuda *c = cuda_of(s);
    tt_image_shape shape = {images, 1, pixels, channels, false};
    if (bad_image(&shape) || ldx < channels || ldy < channels || groups < 1 ||
        groups > kMaxGroups || channels % groups || images > 65535)
        return tt_fail(e, TT_EINVAL,
                       "group_norm: %lld images of %lld pixels, %lld channels in %lld groups, "
                       "stride %lld",
                       (long long)images, (long long)pixels, (long long)channels,
                       (long long)groups, (long long)(ldx < ldy ? ldx : ldy));
    if (images == 0)
        return TT_OK;
    BY_TYPE(group_norm(c,
                       group_args<T>{(T *)y, (const T *)x, ldy, ldx, pixels, (int)channels,
                                     (int)groups, 0, 0, w, b, eps, silu},
                       images, e));
}

extern "C" tt_status tt_cuda_average_pool(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                          int64_t ldx, const tt_image_shape *shape, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_image(shape) || shape->up || shape->height % 2 || shape->width % 2 ||
        ldx < shape->channels || ldy < shape->channels)
        return image_error("average_pool", shape, ldx < ldy ? ldx : ldy, e);
    int64_t rows = shape->images * shape->height * shape->width / 4;
    if (rows == 0)
        return TT_OK;
    BY_TYPE(launch(c, "average_pool", pool_rows<T>, (unsigned)rows, 128, 0, e, (T *)y, ldy,
                   (const T *)x, ldx, shape->width / 2, (int)shape->channels));
}

extern "C" tt_status tt_cuda_nearest(tt_stream *s, int32_t *id, float *distance, const tt_act *x,
                                     int64_t ldx, int64_t rows, const float *code, int64_t codes,
                                     int64_t dim, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad_shape(rows, dim, ldx) || codes < 1 || codes > INT32_MAX)
        return tt_fail(e, TT_EINVAL, "nearest: %lld rows of %lld, stride %lld, %lld codes",
                       (long long)rows, (long long)dim, (long long)ldx, (long long)codes);
    if (rows == 0)
        return TT_OK;
    BY_TYPE(launch(c, "nearest", nearest_rows<T>, (unsigned)rows, kWarps * 32, 0, e, id, distance,
                   (const T *)x, ldx, code, (int)codes, (int)dim));
}
