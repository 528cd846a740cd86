#pragma once

#include <cstdint>
#include <functional>

namespace rolegrad {

/// How many threads this process may keep busy: the affinity mask, cut by the cgroup's CPU quota, and by
/// ROLEGRAD_THREADS.
int available_parallelism();

/// One pool of compute threads per process: two models must not bring two spinning pools.
/// `parallel_for` is called from one thread at a time (the stream); that thread works too.
class Executor {
 public:
  static Executor& shared();

  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  /// Workers, the calling thread included.
  int threads() const { return threads_; }
  /// How many of them the next calls use, 1 <= n <= the pool's size. For tests and benchmarks.
  void limit_threads(int n);

  /// Runs body(task, worker) for every task in [0, tasks); tasks are handed out in increasing order.
  /// A body writes only what its task owns, so that results do not depend on the number of threads.
  void parallel_for(int64_t tasks, const std::function<void(int64_t task, int worker)>& body);

 private:
  explicit Executor(int threads);
  struct Pool;
  Pool* pool_;
  int threads_;
  int active_;
};

/// Round to nearest, no flush to zero, exceptions masked: whatever the host program has set, compute threads use this.
void set_float_environment();

}  // namespace rolegrad
