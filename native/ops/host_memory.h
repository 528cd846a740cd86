#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

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

/// Where a block of memory lies.
enum class Placement {
  alone,
  packed,  // beside others that live about as long, as a model's weights do
};

/// Zeroed memory of the host, 64-byte aligned, touched only when it is used. Large blocks are the system's own, in huge
/// pages where it has them: weights and the cache are read in places far apart, each of which would take a page's
/// translation of its own. Packed ones share such pages, however small each is.
class HostMemory final : public Memory {
 public:
  /// ERR_OUT_OF_MEMORY when the system refuses.
  explicit HostMemory(size_t bytes, Placement placement = Placement::alone);
  ~HostMemory() override;
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;

  void* data() const override { return data_; }
  size_t bytes() const override { return bytes_; }

 private:
  struct Mapping;
  static std::shared_ptr<Mapping> map(size_t bytes);
  bool place_in_mapping(size_t bytes, Placement placement);

  void* data_ = nullptr;
  size_t bytes_ = 0;
  void* heap_ = nullptr;
  std::shared_ptr<Mapping> mapping_;  // or this
};

}  // namespace rolegrad
