#pragma once

// The one way in which kernels are started, and the few words of CUDA that differ where they are compiled as plain C++.
// Kernel files say launch(stream, grid, block, kernel, arguments...), never <<<>>>, and ROLEGRAD_SHARED for arrays of a
// block.

#include <cstdint>
#include <stdexcept>
#include <tuple>
#include <utility>

#if defined(__CUDACC__)
#include <cuda_runtime.h>

#define ROLEGRAD_SHARED(type, name, count) __shared__ type name[count]

namespace rolegrad::gpu {

using Stream = cudaStream_t;

template <class... P, class... A>
void launch(Stream stream, dim3 grid, dim3 block, void (*kernel)(P...), A&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  kernel<<<grid, block, 0, stream>>>(P(std::forward<A>(arguments))...);
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess)
    throw std::runtime_error(std::string("a kernel did not start: ") + cudaGetErrorString(error));
}

}  // namespace rolegrad::gpu
#else
#include "cuda/emulation/emulation.h"

namespace rolegrad::gpu {

/// Everything happens at once; what a stream has is the order in which the threads of its kernels run.
using Stream = emulation::Order;

template <class... P, class... A>
void launch(Stream order, dim3 grid, dim3 block, void (*kernel)(P...), A&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  struct Call {
    void (*kernel)(P...);
    std::tuple<P...> arguments;
  } call{kernel, {P(std::forward<A>(arguments))...}};
  emulation::run(
      order, grid, block,
      [](void* at) {
        Call& c = *static_cast<Call*>(at);
        std::apply(c.kernel, c.arguments);
      },
      &call);
}

}  // namespace rolegrad::gpu
#endif

namespace rolegrad::gpu {

/// Blocks of `each` that cover n.
constexpr unsigned blocks(int64_t n, int64_t each) { return unsigned((n + each - 1) / each); }

}  // namespace rolegrad::gpu
