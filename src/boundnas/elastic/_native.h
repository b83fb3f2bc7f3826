/* What the kernels share: vectors of sixteen floats, compiled for every kind of processor. */

#ifndef BOUNDNAS_NATIVE_H
#define BOUNDNAS_NATIVE_H

#define LANES 16

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int mask __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#if defined(__x86_64__) && !defined(__clang__)
#define EVERY_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EVERY_PROCESSOR
#endif

#define INLINE static inline __attribute__((always_inline))

#endif
