// The emulation finds what it is there to find: each kernel here is wrong in one way, beside its right form.
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/launch.h"
#include "harness.h"

namespace {

using rolegrad::dim3;
using rolegrad::emulation::Order;
using rolegrad::gpu::launch;

/// y[i] = the x of the next thread (of the one before: step 31 of 32), by way of shared memory.
template <bool barrier>
__global__ void neighbour(int* y, int step) {
  ROLEGRAD_SHARED(int, x, 64);
  x[threadIdx.x] = int(threadIdx.x);
  if (barrier) __syncthreads();
  y[threadIdx.x] = x[(threadIdx.x + step) % 64];
}

template <bool barrier>
bool right(Order order, int step) {
  std::vector<int> y(64);
  launch(order, dim3(1), dim3(64), neighbour<barrier>, y.data(), step);
  for (int i = 0; i < 64; i++)
    if (y[size_t(i)] != (i + step) % 64) return false;
  return true;
}

TEST("a missing barrier comes out wrong in one of the two orders, whichever neighbour is read") {
  for (int step : {1, 63, 32}) {
    CHECK(right<true>(Order::ascending, step) && right<true>(Order::descending, step));
    CHECK(!right<false>(Order::ascending, step) || !right<false>(Order::descending, step));
  }
}

__global__ void untouched(int* y) {
  ROLEGRAD_SHARED(int, x, 4);
  y[threadIdx.x] = x[threadIdx.x];
}

TEST("shared memory is garbage when a block begins, and again in the next block") {
  std::vector<int> y(4, 0);
  launch(Order::ascending, dim3(2), dim3(4), untouched, y.data());
  for (int value : y) CHECK_EQUAL(unsigned(value), 0xCDCDCDCDu);
}

template <class... P, class... A>
std::string failure(dim3 block, void (*kernel)(P...), A... arguments) {
  try {
    launch(Order::ascending, dim3(1), block, kernel, arguments...);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}
bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

__global__ void some_reach_it() {
  if (threadIdx.x < 40) __syncthreads();
}
__global__ void some_lanes(int* y) {
  if (threadIdx.x % 2) y[threadIdx.x] = __shfl_xor_sync(~0u, 1, 2);
}
__global__ void too_much() {
  ROLEGRAD_SHARED(double, x, 8192);
  x[0] = 0;
}

TEST("a barrier or a shuffle that some threads do not reach, and too large a shared array, end the launch") {
  int y[64] = {};
  CHECK(has(failure(dim3(64), some_reach_it), "__syncthreads is reached by 40 of 64"));
  CHECK(has(failure(dim3(64), some_lanes, static_cast<int*>(y)), "reached by 16 of its 32 lanes"));
  CHECK(has(failure(dim3(1), too_much), "65536 bytes"));
  CHECK(has(failure(dim3(2048), too_much), "2048 threads"));
  CHECK(right<true>(Order::ascending, 1));  // and the next launch runs
}

__global__ void shuffles(int* y) {
  int sum = int(threadIdx.x);
  for (int m = 16; m > 0; m /= 2) sum += __shfl_xor_sync(~0u, sum, m);
  y[threadIdx.x] = sum * 100 + __shfl_sync(~0u, int(threadIdx.x), 5);
}

TEST("shuffles are among the lanes of a warp, in either order") {
  for (Order order : {Order::ascending, Order::descending}) {
    std::vector<int> y(96);
    launch(order, dim3(1), dim3(96), shuffles, y.data());
    for (int i = 0; i < 96; i++) CHECK_EQUAL(y[size_t(i)], (496 + i / 32 * 1024) * 100 + i / 32 * 32 + 5);
  }
}

}  // namespace
