// Compiled with this instruction set's flags; see kernels.inl.
#include "ops/cpu/kernels.h"

#define LANES 8
#define MR 6
#define NV 2
#define ROLEGRAD_ISA_NAMESPACE avx2
#define ROLEGRAD_ISA_NAME "avx2"
#include "ops/cpu/kernels.inl"

namespace rolegrad::cpu {
const Kernels& avx2_kernels() { return avx2::kKernels; }
}  // namespace rolegrad::cpu
