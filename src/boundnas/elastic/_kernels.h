/* All kernels for one kind of processor, in a file that says
 *
 *     LANES          floats in one of its registers
 *     ON_PROCESSOR   an attribute of functions that are compiled for it
 *     KERNELS        the name of the table of the kernels
 */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "_native.h"

#define INLINE static inline __attribute__((always_inline))

#define FLUSH 64                       /* numbers summed in single precision, then in double */
#define WORTH_THREADS 32768            /* elements that memory takes the time for */
#define WORTH_THREADS_COMPUTING 262144 /* multiplications */

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int mask __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#include "_batch_norm.c"
#include "_depthwise.c"
#include "_pointwise.c"
#include "_squeeze_excite.c"

const struct kernels KERNELS = {
    .depthwise = depthwise,
    .depthwise_weight_gradient = depthwise_weight_gradient,
    .batch_moments = batch_moments,
    .batch_norm_forward = batch_norm_forward,
    .batch_norm_backward = batch_norm_backward,
    .activation_products = activation_products,
    .scale_gradients = scale_gradients,
    .pointwise = pointwise,
    .input_products = input_products,
    .weight_products = weight_products,
    .inner_product = inner_product,
};
