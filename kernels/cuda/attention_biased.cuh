/* attention_biased.cuh - spans with a bias as the attention kernels see them. */
#ifndef TT_ATTENTION_BIASED_CUH
#define TT_ATTENTION_BIASED_CUH

#include "kernels/cuda/device.cuh"

struct biased_task {
    tt_biased_span span;
    int64_t first; /* tile of query rows the span begins at */
};

/* One argument. */
struct biased_tasks {
    int64_t n, tiles;
    biased_task at[];
};

/* The span a tile belongs to; NULL: the grid, made for rows alone, has more tiles than spans. */
__device__ inline const biased_task *task_of(const biased_tasks *list, int64_t tile)
{
    if (tile >= list->tiles)
        return nullptr;
    int64_t low = 0, high = list->n - 1;
    while (low < high) {
        int64_t mid = (low + high + 1) / 2;
        if (list->at[mid].first <= tile)
            low = mid;
        else
            high = mid - 1;
    }
    return &list->at[low];
}

/* What is added to the scores of one head. */
struct bias_rule {
    const tt_biased_span *p;
    int64_t head;
    float scale;
    struct row {
        const float *bias; /* of key 0 */
        int64_t step;
        int first; /* key that gets `later` */
        float later, scale;
        bool by_order;
        __device__ float at(int key) const
        {
            if (by_order)
                return key >= first ? later : 0.0f;
            return __ldg(bias + key * step);
        }
        __device__ float score(int key, float dot) const { return fmaf(dot, scale, at(key)); }
    };
    __device__ row of(int64_t i) const
    {
        int64_t first = i + 1 > p->from ? i + 1 : p->from;
        return {p->bias + head * p->bias_head + i * p->bias_query,
                p->bias_key,
                (int)(first < p->keys ? first : p->keys),
                p->later,
                scale,
                p->by_order};
    }
};

/* Spans by order, of heads of 64 or 128 channels, in tiles of kLongRows query rows on Hopper;
 * scale: above zero. */
tt_status cuda_attend_ordered(const cuda *c, bf16 *out, int64_t ldo, const bf16 *q, int64_t ldq,
                              const biased_tasks *list, int heads, int dim, float scale, tt_err *e);
/* Float32 in thirds, where cuda_thirds_fit (attention.cuh), in tiles of 64 query rows. */
tt_status cuda_attend_thirds_biased(const cuda *c, float *out, int64_t ldo, const float *q,
                                    int64_t ldq, const biased_tasks *list, dim3 grid, int dim,
                                    float scale, tt_err *e);

#endif
