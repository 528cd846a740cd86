// Compiled with this instruction set's flags; see kernels.inl.
#include "ops/cpu/kernels.h"

#define LANES 16
#define MR 12
#define NV 2
#define ROLEGRAD_ISA_NAMESPACE avx512
#define ROLEGRAD_ISA_NAME "avx512"
#include "ops/cpu/kernels.inl"

namespace rolegrad::cpu {
const Kernels& avx512_kernels() { return avx512::kKernels; }
}  // namespace rolegrad::cpu
