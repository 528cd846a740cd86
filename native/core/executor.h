#pragma once

#include <cstdint>

#include "core/function_ref.h"

namespace rolegrad {

/// How many threads this process may keep busy: the affinity mask, cut by the cgroup's CPU quota, and by
/// ROLEGRAD_THREADS.
int available_parallelism();

/// One pool of compute threads per process: two models must not bring two spinning pools.
/// `parallel_for` runs one call at a time (callers take turns); the thread that calls works too.
class Executor {
 public:
  static Executor& shared();
  using Body = FunctionRef<void(int64_t task, int worker)>;

  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  /// Workers, the calling thread included.
  int threads() const { return threads_; }
  /// How many of them the next calls use, 1 <= n <= the pool's size. For tests and benchmarks.
  void limit_threads(int n);

  /// Runs body(task, worker) for every task in [0, tasks); tasks are handed out in increasing order.
  /// A body writes only what its task owns, so that results do not depend on the number of threads; it calls no
  /// parallel_for itself. What a task throws ends the call: tasks that have not begun are left out, and the caller gets
  /// the exception. So does the caller's abort flag (core/abort.h), which is looked at before every task.
  void parallel_for(int64_t tasks, Body body);

  /// Runs `work` on this thread while no call is under way, whoever made it.
  void between_calls(FunctionRef<void()> work);

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
