// Compiled with this instruction set's flags.
#include "attribution/kernels.h"

#define KERNELS kAvx512Kernels
#define VECTOR_BYTES 64
#include "attribution/kernels.inl"
