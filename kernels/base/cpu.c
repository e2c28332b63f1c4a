/* cpu.c - see cpu.h. */
#include "kernels/base/cpu.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

static tt_cpu_level detect(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return __builtin_cpu_supports("avx512bf16") ? TT_CPU_AVX512_BF16 : TT_CPU_AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return TT_CPU_AVX2;
#endif
    return TT_CPU_SCALAR;
}

tt_cpu_level tt_cpu_level_get(void)
{
    tt_cpu_level have = detect();
    const char *want = getenv("TUTTI_CPU");
    for (int i = TT_CPU_SCALAR; want && i < (int)have; i++)
        if (!strcmp(want, tt_cpu_level_name((tt_cpu_level)i)))
            return (tt_cpu_level)i;
    return have;
}

const char *tt_cpu_level_name(tt_cpu_level level)
{
    static const char *const name[] = {"scalar", "avx2", "avx512", "avx512_bf16"};
    return name[level];
}

bool tt_cpu_has_bf16(void)
{
    return tt_cpu_level_get() >= TT_CPU_AVX512_BF16;
}

bool tt_cpu_has_vnni(void)
{
#if defined(__x86_64__)
    return tt_cpu_level_get() >= TT_CPU_AVX512 && __builtin_cpu_supports("avx512vnni");
#else
    return false;
#endif
}

bool tt_cpu_has_amx(void)
{
#if defined(__x86_64__)
    unsigned a, b, c, d;
    enum { AMX_BF16 = 1 << 22 };
    return tt_cpu_level_get() == TT_CPU_AVX512_BF16 && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
           (d & AMX_BF16);
#else
    return false;
#endif
}

int tt_cpu_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set))
        return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}
