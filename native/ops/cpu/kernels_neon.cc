// Compiled with this instruction set's flags; see kernels.inl.
#include "ops/cpu/kernels.h"

#define LANES 4
#define MR 12
#define NV 2
#define ROLEGRAD_ISA_NAMESPACE neon
#define ROLEGRAD_ISA_NAME "neon"
#include "ops/cpu/kernels.inl"

namespace rolegrad::cpu {
const Kernels& neon_kernels() { return neon::kKernels; }
}  // namespace rolegrad::cpu
