#include "cuda/emulation/emulation.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "cuda/emulation/fibre.h"

namespace rolegrad::emulation {

Place place;

namespace {

/// What a block may have without asking for more.
constexpr size_t kSharedBytes = size_t(48) << 10;
constexpr unsigned kWarp = 32, kMostThreads = 1024;

enum class Wait : uint8_t { nothing, block, warp, done };

struct Thread {
  Fibre fibre;
  dim3 index;
  Wait wait = Wait::nothing;
  size_t shared = 0;  // taken so far
  uint64_t given = 0;
  std::string failure;
};

struct Block {
  std::vector<std::unique_ptr<Thread>> threads;  // kept from launch to launch
  unsigned count = 0, current = 0;
  alignas(64) unsigned char shared[kSharedBytes];
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
  Order order = Order::ascending;

  Thread& now() { return *threads[current]; }
  void run();
  void run_warp(unsigned warp);
  void resume(unsigned thread);
};
Block& the_block() {
  static auto& block = *new Block;
  return block;
}

[[noreturn]] void refuse(const std::string& what) {
  throw std::runtime_error("emulated block (" + std::to_string(place.block.x) + ", " + std::to_string(place.block.y) +
                           ", " + std::to_string(place.block.z) + "): " + what);
}

void entry(void*) {
  Block& block = the_block();
  // No exception may leave a fibre: its stack ends here.
  try {
    block.body(block.argument);
  } catch (const std::exception& error) {
    block.now().failure = error.what();
  }
  block.now().wait = Wait::done;
}

void Block::resume(unsigned thread) {
  current = thread;
  Thread& t = *threads[thread];
  t.wait = Wait::nothing;
  place.thread = t.index;
  t.fibre.resume();
  if (!t.failure.empty()) refuse(t.failure);
}

/// Until every lane waits for the block or is done.
void Block::run_warp(unsigned warp) {
  const unsigned first = warp * kWarp, lanes = std::min(kWarp, count - first);
  for (;;) {
    for (unsigned i = 0; i < lanes; i++) {
      const unsigned thread = first + (order == Order::ascending ? i : lanes - 1 - i);
      if (threads[thread]->wait == Wait::nothing) resume(thread);
    }
    unsigned waiting = 0;
    for (unsigned i = 0; i < lanes; i++) waiting += threads[first + i]->wait == Wait::warp;
    if (waiting == 0) return;
    if (waiting != lanes)
      refuse("a barrier or shuffle of warp " + std::to_string(warp) + " is reached by " + std::to_string(waiting) +
             " of its " + std::to_string(lanes) + " lanes");
    for (unsigned i = 0; i < lanes; i++) threads[first + i]->wait = Wait::nothing;
  }
}

void Block::run() {
  std::memset(shared, 0xCD, sizeof shared);
  for (unsigned i = 0; i < count; i++) {
    Thread& t = *threads[i];
    t.index = dim3(i % place.block_dim.x, i / place.block_dim.x % place.block_dim.y,
                   i / (place.block_dim.x * place.block_dim.y));
    t.wait = Wait::nothing, t.shared = 0, t.failure.clear();
    t.fibre.start(entry, nullptr);
  }
  const unsigned warps = (count + kWarp - 1) / kWarp;
  for (;;) {
    for (unsigned i = 0; i < warps; i++) run_warp(order == Order::ascending ? i : warps - 1 - i);
    unsigned waiting = 0;
    for (unsigned i = 0; i < count; i++) waiting += threads[i]->wait == Wait::block;
    if (waiting == 0) return;
    if (waiting != count)
      refuse("__syncthreads is reached by " + std::to_string(waiting) + " of " + std::to_string(count) + " threads");
    for (unsigned i = 0; i < count; i++) threads[i]->wait = Wait::nothing;
  }
}

void yield(Wait wait) {
  Thread& t = the_block().now();
  const dim3 block = place.block;
  t.wait = wait;
  t.fibre.yield();
  place.thread = t.index, place.block = block;
}

}  // namespace

void run(Order order, dim3 grid, dim3 block_dim, void (*body)(void*), void* argument) {
  static auto& mutex = *new std::mutex;
  std::lock_guard lock(mutex);
  Block& block = the_block();
  block.count = block_dim.x * block_dim.y * block_dim.z;
  if (block.count == 0 || block.count > kMostThreads || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 ||
      grid.z > 65535 || grid.x > 0x7fffffffu)
    throw std::runtime_error("no device starts a grid of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) +
                             " x " + std::to_string(grid.z) + " blocks of " + std::to_string(block.count) + " threads");
  while (block.threads.size() < block.count) block.threads.push_back(std::make_unique<Thread>());
  block.body = body, block.argument = argument, block.order = order;
  place.block_dim = block_dim, place.grid_dim = grid;
  for (unsigned z = 0; z < grid.z; z++)
    for (unsigned y = 0; y < grid.y; y++)
      for (unsigned x = 0; x < grid.x; x++) {
        place.block = dim3(x, y, z);
        block.run();
      }
}

void block_barrier() { yield(Wait::block); }
void warp_barrier() { yield(Wait::warp); }

unsigned lane() { return the_block().current % kWarp; }

uint64_t exchange(uint64_t value, unsigned from) {
  Block& block = the_block();
  const unsigned own = block.current, first = own / kWarp * kWarp;
  block.now().given = value;
  warp_barrier();
  // Of a lane that the block does not have, as on a device: anything. This thread's own value hides nothing worse.
  const uint64_t got = first + from < block.count ? block.threads[first + from]->given : value;
  warp_barrier();
  return got;
}

void* take_shared(size_t bytes, size_t& before) {
  Thread& t = the_block().now();
  before = t.shared;
  const size_t at = (t.shared + 15) / 16 * 16;
  if (at + bytes > kSharedBytes)
    throw std::runtime_error("shared arrays of " + std::to_string(at + bytes) + " bytes, above " +
                             std::to_string(kSharedBytes));
  t.shared = at + bytes;
  return the_block().shared + at;
}

void give_shared(size_t before) { the_block().now().shared = before; }

}  // namespace rolegrad::emulation
