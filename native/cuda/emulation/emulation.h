#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>

// What a kernel sees where it is compiled as plain C++: the threads of a block are fibres, blocks run one after
// another. A warp runs as far as it can before the next one begins, and of its lanes one at a time, in one of two
// orders, so that what a barrier should have ordered and does not comes out wrong in at least one of them. Shared
// memory is full of garbage when a block begins. A barrier that some threads of the block (or lanes of the warp) do not
// reach ends the launch with an error, and so does a shared array that is too large.

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)

namespace rolegrad {

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace emulation {

/// In which order the lanes and warps of a block run.
enum class Order { ascending, descending };

/// Of the thread that runs.
struct Place {
  dim3 thread, block, block_dim, grid_dim;
};
extern Place place;

/// Calls body(argument) once for each thread of each block, in this order. Throws std::runtime_error on what no device
/// allows.
void run(Order order, dim3 grid, dim3 block, void (*body)(void*), void* argument);

void block_barrier();
void warp_barrier();
/// What lane `from` of this warp gave in the same call; every lane of the warp takes part.
uint64_t exchange(uint64_t value, unsigned from);
unsigned lane();

/// An array of the block's shared memory for the scope that it is declared in: the same addresses in every thread.
void* take_shared(size_t bytes, size_t& before);
void give_shared(size_t before);
template <class T>
class Shared {
 public:
  explicit Shared(size_t count) : data_(static_cast<T*>(take_shared(count * sizeof(T), before_))) {}
  ~Shared() { give_shared(before_); }
  Shared(const Shared&) = delete;
  T* data() const { return data_; }

 private:
  size_t before_ = 0;
  T* data_;
};

template <class T>
T shuffle(T value, unsigned from) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(T));
  bits = exchange(bits, from);
  __builtin_memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace emulation
}  // namespace rolegrad

#define threadIdx (::rolegrad::emulation::place.thread)
#define blockIdx (::rolegrad::emulation::place.block)
#define blockDim (::rolegrad::emulation::place.block_dim)
#define gridDim (::rolegrad::emulation::place.grid_dim)

inline void __syncthreads() { ::rolegrad::emulation::block_barrier(); }
inline void __syncwarp(unsigned = ~0u) { ::rolegrad::emulation::warp_barrier(); }
template <class T>
T __shfl_sync(unsigned, T value, int lane) {
  return ::rolegrad::emulation::shuffle(value, unsigned(lane) & 31u);
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return ::rolegrad::emulation::shuffle(value, (::rolegrad::emulation::lane() ^ unsigned(mask)) & 31u);
}

/// An array of `count` elements in the memory that the threads of a block share.
#define ROLEGRAD_SHARED(type, name, count)                       \
  const ::rolegrad::emulation::Shared<type> name##_block(count); \
  type* const name = name##_block.data()
