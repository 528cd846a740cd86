// Compiled with this instruction set's flags.
#include "attribution/kernels.h"

#define KERNELS kAvx2Kernels
#define VECTOR_BYTES 32
#include "attribution/kernels.inl"
