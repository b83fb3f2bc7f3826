/* The kernels for processors with AVX-512. */

#include "_native.h"

#ifdef KINDS_OF_X86
#define LANES 16
#define ON_PROCESSOR __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))
#define KERNELS kernels_avx512
#include "_kernels.h"
#endif
