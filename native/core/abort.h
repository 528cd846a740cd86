#pragma once

#include <atomic>

#include "core/error.h"

namespace rolegrad {

/// Thrown out of work that was asked to end.
class Aborted : public Error {
 public:
  Aborted() : Error("ERR_ABORTED", "The work was aborted") {}
};

// One pointer of glibc's reserve for libraries that are loaded late: no call to find it, and no block on the heap,
// which the leak sanitizer of GCC 12 trips over. Elsewhere (musl) there is no such reserve.
#if defined(__GLIBC__)
#define ROLEGRAD_STATIC_TLS __attribute__((tls_model("initial-exec")))
#else
#define ROLEGRAD_STATIC_TLS
#endif

/// The flag that ends what this thread works on; null where nothing can. The stream sets it for a job's duration and
/// the executor hands it on to the threads that take part, which look at it before every task.
ROLEGRAD_STATIC_TLS inline constinit thread_local const std::atomic<bool>* abort_flag = nullptr;

/// Other work on this thread for a while; AbortScope(nullptr): work that must not end half-way.
class AbortScope {
 public:
  explicit AbortScope(const std::atomic<bool>* flag) : before_(abort_flag) { abort_flag = flag; }
  ~AbortScope() { abort_flag = before_; }
  AbortScope(const AbortScope&) = delete;
  AbortScope& operator=(const AbortScope&) = delete;

 private:
  const std::atomic<bool>* before_;
};

inline void check_aborted() {
  if (abort_flag != nullptr && abort_flag->load(std::memory_order_relaxed)) throw Aborted();
}

}  // namespace rolegrad
