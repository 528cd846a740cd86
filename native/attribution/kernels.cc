#include "attribution/kernels.h"

#include "core/cpu.h"

#define KERNELS kPlainKernels
#define VECTOR_BYTES 16
#include "attribution/kernels.inl"

namespace rolegrad::attribution {

const Kernels& kernels() {
#if defined(__x86_64__) || defined(_M_X64)
  static const Kernels& best = [&]() -> const Kernels& {
    const auto isas = available_isas();
    return isas.empty() ? kPlainKernels : isas.front() == "avx512" ? kAvx512Kernels : kAvx2Kernels;
  }();
  return best;
#else
  return kPlainKernels;
#endif
}

}  // namespace rolegrad::attribution
