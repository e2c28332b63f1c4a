/* cpu.h - what this processor can do. */
#ifndef TT_CPU_H
#define TT_CPU_H

#include <stdbool.h>

typedef enum { TT_CPU_SCALAR, TT_CPU_AVX2, TT_CPU_AVX512 } tt_cpu_level;

/* The best level this processor has, or the lower one that TUTTI_CPU=scalar|avx2|avx512 asks
 * for. AVX2 implies FMA and F16C; AVX512 implies F, BW, VL, DQ. */
tt_cpu_level tt_cpu_level_get(void);
const char *tt_cpu_level_name(tt_cpu_level level);
bool tt_cpu_has_bf16(void); /* AVX512-BF16 dot products */
bool tt_cpu_has_vnni(void); /* AVX512-VNNI int8 dot products */
int tt_cpu_cores(void);     /* cores this process may run on, at least 1 */

#endif
