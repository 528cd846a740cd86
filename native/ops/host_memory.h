#pragma once

#include <atomic>
#include <cstdint>

#include "ops/backend.h"

namespace rolegrad {

/// Blocks asked for since the process began, and the bytes that are held now: tests of "allocates nothing" and of
/// leaks.
struct HostMemoryUse {
  std::atomic<int64_t> allocations{0}, bytes{0};
};
inline HostMemoryUse& host_memory_use() {
  static HostMemoryUse use;
  return use;
}

/// Zeroed memory of the host, 64-byte aligned, touched only when it is used. Large blocks are the system's own, in huge
/// pages where it has them: weights and the cache are read in places far apart, each of which would take a page's
/// translation of its own.
class HostMemory final : public Memory {
 public:
  /// ERR_OUT_OF_MEMORY when the system refuses.
  explicit HostMemory(size_t bytes);
  ~HostMemory() override;
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;

  void* data() const override { return data_; }
  size_t bytes() const override { return bytes_; }

 private:
  void* block_ = nullptr;
  void* data_ = nullptr;
  size_t bytes_ = 0;
  size_t mapped_ = 0;  // the length of what was mapped; 0: of the heap
};

}  // namespace rolegrad
