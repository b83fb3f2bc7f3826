/* The kernels for processors of any other kind. */

#define LANES 4
#define ON_PROCESSOR
#define KERNELS kernels_any
#include "_kernels.h"
