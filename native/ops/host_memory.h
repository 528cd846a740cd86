#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "core/error.h"
#include "core/fault.h"
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

/// Zeroed memory of the host, 64-byte aligned. calloc and not new: the system's zero pages are touched only when they
/// are used.
class HostMemory final : public Memory {
 public:
  explicit HostMemory(size_t bytes) : bytes_(bytes) {
    if (bytes <= SIZE_MAX - kAlign && !fault_due(Fault::allocation)) block_ = std::calloc(bytes + kAlign, 1);
    if (!block_)
      throw Error("ERR_OUT_OF_MEMORY",
                  "Expected " + std::to_string(bytes) + " bytes of memory but the system refused them");
    host_memory_use().allocations++;
    host_memory_use().bytes += int64_t(bytes);
    data_ = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(block_) + kAlign - 1) / kAlign * kAlign);
  }
  ~HostMemory() override {
    host_memory_use().bytes -= int64_t(bytes_);
    std::free(block_);
  }
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;

  void* data() const override { return data_; }
  size_t bytes() const override { return bytes_; }

 private:
  static constexpr size_t kAlign = 64;
  void* block_ = nullptr;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace rolegrad
