#include "ops/host_memory.h"

#include <cstdlib>
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

void* align_up(void* block, size_t to) {
  return reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(block) + to - 1) / to * to);
}

}  // namespace

HostMemory::HostMemory(size_t bytes) : bytes_(bytes) {
  if (bytes <= SIZE_MAX - 2 * kHugePage && !fault_due(Fault::allocation)) {
#if defined(MADV_HUGEPAGE)
    if (bytes >= 2 * kHugePage) {
      const size_t length = bytes + kHugePage;
      void* block = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (block != MAP_FAILED) {
        block_ = block;
        mapped_ = length;
        data_ = align_up(block, kHugePage);
        madvise(data_, bytes, MADV_HUGEPAGE);  // where it is refused pages are small
      }
    } else
#endif
    {
      // calloc and not new: pages that the system has zeroed are not written to again.
      block_ = std::calloc(bytes + kAlign, 1);
      data_ = align_up(block_, kAlign);
    }
  }
  if (!block_)
    throw Error("ERR_OUT_OF_MEMORY",
                "Expected " + std::to_string(bytes) + " bytes of memory but the system refused them");
  host_memory_use().allocations++;
  host_memory_use().bytes += int64_t(bytes);
}

HostMemory::~HostMemory() {
  host_memory_use().bytes -= int64_t(bytes_);
#if defined(MADV_HUGEPAGE)
  if (mapped_ > 0) {
    munmap(block_, mapped_);
    return;
  }
#endif
  std::free(block_);
}

}  // namespace rolegrad
