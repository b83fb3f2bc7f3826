/* The kernels for processors with AVX2 and FMA. */

#include "_native.h"

#ifdef KINDS_OF_X86
#define LANES 8
#define ON_PROCESSOR __attribute__((target("avx2,fma")))
#define KERNELS kernels_avx2
#include "_kernels.h"
#endif
