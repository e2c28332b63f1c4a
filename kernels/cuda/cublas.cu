/* cublas.cu - large products through cuBLASLt, as the measure of our own (ceilings.cu). The library
 * is opened when it is wanted and nothing else needs it; without it there is no measure. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/ceilings.cuh"

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>

namespace {

constexpr size_t kWorkspace = 64 << 20;

#define FUNCTIONS(X)                 \
    X(cublasLtCreate)                \
    X(cublasLtDestroy)               \
    X(cublasLtMatmulDescCreate)      \
    X(cublasLtMatmulDescDestroy)     \
    X(cublasLtMatmulDescSetAttribute) \
    X(cublasLtMatrixLayoutCreate)    \
    X(cublasLtMatrixLayoutDestroy)   \
    X(cublasLtMatmulPreferenceCreate) \
    X(cublasLtMatmulPreferenceDestroy) \
    X(cublasLtMatmulPreferenceSetAttribute) \
    X(cublasLtMatmulAlgoGetHeuristic) \
    X(cublasLtMatmul)

struct library {
    void *file;
#define MEMBER(name) decltype(&::name) name;
    FUNCTIONS(MEMBER)
#undef MEMBER
};

constexpr char kFile[] = "libcublasLt.so.13";

void *open_in(const char *folder, int length, const char *middle)
{
    char path[4096];
    int n = snprintf(path, sizeof path, "%.*s%s/%s", length, folder, middle, kFile);
    return n > 0 && (size_t)n < sizeof path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
}

/* Where the user says, beside the plug-in, where the system looks. */
void *open_file()
{
    void *file = NULL;
    const char *user = getenv("TUTTI_CUDA_PATH");
    if (user) {
        int length = (int)strnlen(user, 4096);
        file = open_in(user, length, "");
        file = file ? file : open_in(user, length, "/lib64");
    }
    Dl_info self;
    const char *slash;
    if (!file && dladdr((const void *)&kFile, &self) && self.dli_fname &&
        (slash = strrchr(self.dli_fname, '/')))
        file = open_in(self.dli_fname, (int)(slash - self.dli_fname), "");
    return file ? file : dlopen(kFile, RTLD_NOW | RTLD_LOCAL);
}

bool open_library(library *l)
{
    *l = {};
    l->file = open_file();
    bool complete = l->file != NULL;
#define FIND(name)                                                \
    if (complete) {                                               \
        void *symbol = dlsym(l->file, #name);                     \
        memcpy(&l->name, &symbol, sizeof symbol);                 \
        complete = symbol != NULL;                                \
    }
    FUNCTIONS(FIND)
#undef FIND
    if (!complete && l->file)
        dlclose(l->file);
    return complete;
}

/* y = x w^T with row-major matrices is y^T = w x^T with column-major ones: w transposed, x not. */
struct plan {
    library lt;
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulPreference_t wish;
    cublasLtMatmulHeuristicResult_t how;
    void *workspace;
    const square *q;
    cudaStream_t stream;
};

void close_plan(plan *p)
{
    cudaFree(p->workspace);
    if (p->wish)
        p->lt.cublasLtMatmulPreferenceDestroy(p->wish);
    for (cublasLtMatrixLayout_t layout : {p->w, p->x, p->y})
        if (layout)
            p->lt.cublasLtMatrixLayoutDestroy(layout);
    if (p->product)
        p->lt.cublasLtMatmulDescDestroy(p->product);
    if (p->handle)
        p->lt.cublasLtDestroy(p->handle);
    dlclose(p->lt.file);
}

bool make_plan(plan *p, const square &q)
{
    const library &l = p->lt;
    cudaDataType in = q.type == TT_COMPUTE_F32    ? CUDA_R_32F
                      : q.type == TT_COMPUTE_BF16 ? CUDA_R_16BF
                                                  : CUDA_R_8F_E4M3;
    cudaDataType out = q.type == TT_COMPUTE_F32 ? CUDA_R_32F : CUDA_R_16BF;
    cublasOperation_t turned = CUBLAS_OP_T, plain = CUBLAS_OP_N;
    uint64_t n = (uint64_t)q.n;
    int64_t ld = q.n;
    size_t room = kWorkspace;
    int found = 0;
    bool ok =
        !l.cublasLtCreate(&p->handle) &&
        !l.cublasLtMatmulDescCreate(&p->product, CUBLAS_COMPUTE_32F, CUDA_R_32F) &&
        !l.cublasLtMatmulDescSetAttribute(p->product, CUBLASLT_MATMUL_DESC_TRANSA, &turned,
                                          sizeof turned) &&
        !l.cublasLtMatmulDescSetAttribute(p->product, CUBLASLT_MATMUL_DESC_TRANSB, &plain,
                                          sizeof plain) &&
        !l.cublasLtMatrixLayoutCreate(&p->w, in, n, n, ld) &&
        !l.cublasLtMatrixLayoutCreate(&p->x, in, n, n, ld) &&
        !l.cublasLtMatrixLayoutCreate(&p->y, out, n, n, ld) &&
        !l.cublasLtMatmulPreferenceCreate(&p->wish) &&
        !l.cublasLtMatmulPreferenceSetAttribute(
            p->wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room) &&
        !l.cublasLtMatmulAlgoGetHeuristic(p->handle, p->product, p->w, p->x, p->y, p->y, p->wish,
                                          1, &p->how, &found);
    return ok && found > 0 && cudaMalloc(&p->workspace, kWorkspace) == cudaSuccess;
}

tt_status multiply(void *arg, tt_err *e)
{
    const plan *p = (const plan *)arg;
    float one = 1, none = 0;
    cublasStatus_t code = p->lt.cublasLtMatmul(
        p->handle, p->product, &one, p->q->w, p->w, p->q->x, p->x, &none, p->q->y, p->y, p->q->y,
        p->y, &p->how.algo, p->workspace, kWorkspace, p->stream);
    return code == CUBLAS_STATUS_SUCCESS ? TT_OK
                                         : tt_fail(e, TT_EIO, "cuBLASLt: status %d", (int)code);
}

} // namespace

double cuda_cublas_seconds(cuda *c, const square &q, double seconds)
{
    plan p = {};
    double time = 0;
    if (!open_library(&p.lt))
        return 0;
    p.q = &q;
    p.stream = c->q;
    if (make_plan(&p, q) && cuda_median(c, &time, seconds, multiply, &p, NULL))
        time = 0;
    cudaGetLastError(); /* a refusal here says nothing about what follows */
    close_plan(&p);
    return time;
}

#else

double cuda_cublas_seconds(cuda *, const square &, double)
{
    return 0;
}

#endif
