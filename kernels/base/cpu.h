/* cpu.h - what this processor can do. */
#ifndef TT_CPU_H
#define TT_CPU_H

#include <stdbool.h>

typedef enum {
    TT_CPU_SCALAR,
    TT_CPU_AVX2,        /* with FMA */
    TT_CPU_AVX512,      /* F, BW, VL, DQ */
    TT_CPU_AVX512_BF16, /* and bfloat16 dot products */
    TT_CPU_LEVELS
} tt_cpu_level;

/* The best level this processor has, or the lower one that TUTTI_CPU asks for by name: scalar,
 * avx2, avx512, avx512_bf16. */
tt_cpu_level tt_cpu_level_get(void);
const char *tt_cpu_level_name(tt_cpu_level level);
bool tt_cpu_has_bf16(void); /* AVX512-BF16 dot products, and the level allows them */
bool tt_cpu_has_vnni(void); /* AVX512-VNNI int8 dot products, likewise */
bool tt_cpu_has_amx(void);  /* AMX tiles of bfloat16, and the level is the highest */
int tt_cpu_cores(void);     /* cores this process may run on, at least 1 */

#endif
