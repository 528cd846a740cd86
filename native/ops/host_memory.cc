#include "ops/host_memory.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <string>

#include "core/error.h"
#include "core/fault.h"

// The sanitizers know the bounds of what lies on the heap only.
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
#include <sys/mman.h>
#endif

namespace rolegrad {

namespace {

constexpr size_t kAlign = 64;
constexpr size_t kHugePage = size_t(2) << 20;
/// Packed blocks go to mappings of this size; those above a quarter of it get one of their own, as all large ones.
constexpr size_t kShared = 8 * kHugePage;
constexpr size_t kLarge = 2 * kHugePage;

uintptr_t align_up(uintptr_t at, size_t to) { return (at + to - 1) / to * to; }

}  // namespace

#if defined(MADV_HUGEPAGE)
struct HostMemory::Mapping {
  void* block;
  size_t length;
  uintptr_t free, end;  // what is left for packed blocks; under the lock of place_in_mapping

  Mapping(void* from, size_t bytes, uintptr_t start, uintptr_t stop)
      : block(from), length(bytes), free(start), end(stop) {}
  Mapping(const Mapping&) = delete;
  ~Mapping() { munmap(block, length); }
};

/// Huge pages for so many bytes; null when the system refuses.
std::shared_ptr<HostMemory::Mapping> HostMemory::map(size_t bytes) {
  const size_t length = bytes + kHugePage;
  void* block = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (block == MAP_FAILED) return nullptr;
  const uintptr_t start = align_up(reinterpret_cast<uintptr_t>(block), kHugePage);
  madvise(reinterpret_cast<void*>(start), bytes, MADV_HUGEPAGE);  // where it is refused pages are small
  return std::make_shared<Mapping>(block, length, start, start + bytes);
}

bool HostMemory::place_in_mapping(size_t bytes, Placement placement) {
  if (bytes >= kLarge) {
    mapping_ = map(bytes);
    if (mapping_) data_ = reinterpret_cast<void*>(mapping_->free);
    return true;
  }
  if (placement == Placement::alone) return false;
  // Never destroyed: threads of Node may still load a model when static destructors run.
  static auto& mutex = *new std::mutex;
  static auto& current = *new std::weak_ptr<Mapping>;  // gone with the last block in it
  std::lock_guard lock(mutex);
  mapping_ = current.lock();
  if (!mapping_ || mapping_->end - mapping_->free < bytes) current = mapping_ = map(kShared);
  if (!mapping_) return true;
  data_ = reinterpret_cast<void*>(mapping_->free);
  mapping_->free = std::min(mapping_->end, align_up(mapping_->free + bytes, kAlign));
  return true;
}
#else
struct HostMemory::Mapping {};
bool HostMemory::place_in_mapping(size_t, Placement) { return false; }
#endif

HostMemory::HostMemory(size_t bytes, Placement placement) : bytes_(bytes) {
  if (bytes <= SIZE_MAX - 2 * kHugePage && !fault_due(Fault::allocation) && !place_in_mapping(bytes, placement)) {
    // calloc and not new: pages that the system has zeroed are not written to again.
    heap_ = std::calloc(bytes + kAlign, 1);
    if (heap_) data_ = reinterpret_cast<void*>(align_up(reinterpret_cast<uintptr_t>(heap_), kAlign));
  }
  if (!data_)
    throw Error("ERR_OUT_OF_MEMORY",
                "Expected " + std::to_string(bytes) + " bytes of memory but the system refused them");
  host_memory_use().allocations++;
  host_memory_use().bytes += int64_t(bytes);
}

HostMemory::~HostMemory() {
  host_memory_use().bytes -= int64_t(bytes_);
  std::free(heap_);
}

}  // namespace rolegrad
