// The program's own operator new, so that tests can make memory run out at any place.
#include "allocation.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

constinit std::atomic<int64_t> countdown{0};
constinit std::atomic<bool> fired{false};
constinit std::atomic<int64_t> large{0}, large_sum{0};

void* allocate(std::size_t bytes) {
  if (countdown.load(std::memory_order_relaxed) > 0 && countdown.fetch_sub(1) == 1) {
    fired = true;
    throw std::bad_alloc();
  }
  if (bytes >= std::size_t(16) << 10) {
    large.fetch_add(1, std::memory_order_relaxed);
    large_sum.fetch_add(int64_t(bytes), std::memory_order_relaxed);
  }
  if (void* block = std::malloc(bytes == 0 ? 1 : bytes)) return block;
  throw std::bad_alloc();
}

}  // namespace

namespace rolegrad::testing {

void fail_allocation(int64_t n) {
  fired = false;
  countdown = n;
}

bool allocation_failed() { return fired; }

int64_t large_allocations() { return large; }

int64_t large_bytes() { return large_sum; }

}  // namespace rolegrad::testing

void* operator new(std::size_t bytes) { return allocate(bytes); }
void* operator new[](std::size_t bytes) { return allocate(bytes); }
// Of those that ask for memory and can do without (std::stable_sort).
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return std::malloc(bytes == 0 ? 1 : bytes); }
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept { return std::malloc(bytes == 0 ? 1 : bytes); }
void operator delete(void* block) noexcept { std::free(block); }
void operator delete[](void* block) noexcept { std::free(block); }
void operator delete(void* block, std::size_t) noexcept { std::free(block); }
void operator delete[](void* block, std::size_t) noexcept { std::free(block); }
