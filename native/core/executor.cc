#include "core/executor.h"

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <mutex>
#include <new>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "core/abort.h"
#include "core/fault.h"

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace rolegrad {

namespace {

// cgroup v2 "quota period" or v1 files; 0 where there is no limit.
double cgroup_cpus() {
  std::ifstream v2("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (v2 >> quota >> period && quota != "max" && period > 0) return std::atof(quota.c_str()) / period;
  std::ifstream q1("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), p1("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  double q = 0, p = 0;
  if (q1 >> q && p1 >> p && q > 0 && p > 0) return q / p;
  return 0;
}

void pause_cpu() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void run_task(Executor::Body body, int64_t task, int worker) {
  check_aborted();
  // Not where work must not end half-way: such work is made of what cannot fail.
  if (abort_flag != nullptr && fault_due(Fault::task)) throw std::bad_alloc();
  body(task, worker);
}

}  // namespace

int available_parallelism() {
  int n = int(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
#endif
  if (double quota = cgroup_cpus(); quota > 0) n = std::min(n, std::max(1, int(quota + 0.5)));
  if (const char* wanted = std::getenv("ROLEGRAD_THREADS")) {
    int w = std::atoi(wanted);
    if (w >= 1) n = std::min(w, 256);
  }
  return std::max(1, n);
}

void set_float_environment() {
#if defined(__x86_64__)
  _mm_setcsr(0x1f80);
#elif defined(__aarch64__)
  uint64_t zero = 0;
  asm volatile("msr fpcr, %0" ::"r"(zero));
#endif
}

// A worker takes part only by claiming a task, and a claim succeeds only for the call that is under way: so a call ends
// when its tasks are done and never waits for a worker that still sleeps.
struct Executor::Pool {
  std::vector<std::thread> threads;
  std::mutex calls;  // held by the one call under way
  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<uint64_t> ticket{0};  // call number << 32 | next task
  std::atomic<int64_t> tasks{0}, done{0};
  std::atomic<int> active{1}, sleeping{0};
  std::atomic<bool> stop{false}, failed{false};
  const Body* body = nullptr;
  const std::atomic<bool>* abort = nullptr;
  std::exception_ptr error;

  static uint32_t call_of(uint64_t ticket) { return uint32_t(ticket >> 32); }

  /// The next task of this call, or -1.
  int64_t claim(uint32_t call) {
    uint64_t t = ticket.load(std::memory_order_acquire);
    while (call_of(t) == call && int64_t(uint32_t(t)) < tasks.load(std::memory_order_relaxed))
      if (ticket.compare_exchange_weak(t, t + 1, std::memory_order_acq_rel)) return int64_t(uint32_t(t));
    return -1;
  }

  void work(uint32_t call, int worker) {
    for (int64_t task = claim(call); task >= 0; task = claim(call)) {
      if (!failed.load(std::memory_order_relaxed)) {
        try {
          AbortScope scope(abort);
          run_task(*body, task, worker);
        } catch (...) {
          std::lock_guard lock(mutex);
          if (!error) error = std::current_exception();
          failed.store(true);
        }
      }
      done.fetch_add(1, std::memory_order_release);
    }
  }

  void loop(int worker) {
    set_float_environment();
    uint32_t seen = 0;
    for (;;) {
      // About 20 us of spinning covers the gap between two operations of a step; then sleep, so that idle pools cost
      // nothing.
      int spins = 0;
      while (call_of(ticket.load(std::memory_order_acquire)) == seen && !stop.load(std::memory_order_relaxed)) {
        if (++spins < 2000) {
          pause_cpu();
          continue;
        }
        std::unique_lock lock(mutex);
        sleeping.fetch_add(1);
        wake.wait(lock, [&] { return call_of(ticket.load()) != seen || stop.load(); });
        sleeping.fetch_sub(1);
      }
      if (stop.load()) return;
      seen = call_of(ticket.load(std::memory_order_acquire));
      if (worker < active.load(std::memory_order_relaxed)) work(seen, worker);
    }
  }
};

Executor::Executor(int threads) : pool_(new Pool), threads_(threads), active_(threads) {
  for (int i = 1; i < threads; i++) {
    try {
      pool_->threads.emplace_back([this, i] { pool_->loop(i); });
    } catch (const std::system_error&) {
      threads_ = active_ = i;  // the system gives no more threads: those that there are will do
      break;
    }
  }
}

Executor::~Executor() {
  pool_->stop.store(true);
  {
    std::lock_guard lock(pool_->mutex);
  }
  pool_->wake.notify_all();
  for (auto& thread : pool_->threads) thread.join();
  delete pool_;
}

Executor& Executor::shared() {
  // Never destroyed: worker threads of Node may still hold buffers when static destructors run.
  static Executor* executor = new Executor(available_parallelism());
  return *executor;
}

void Executor::limit_threads(int n) {
  std::lock_guard one_call(pool_->calls);
  active_ = std::max(1, std::min(n, threads_));
}

void Executor::between_calls(FunctionRef<void()> work) {
  std::lock_guard no_call(pool_->calls);
  work();
}

void Executor::parallel_for(int64_t tasks, Body body) {
  check_aborted();
  if (tasks <= 0) return;
  Pool& pool = *pool_;
  std::lock_guard one_call(pool.calls);
  if (tasks == 1 || active_ == 1) {
    for (int64_t i = 0; i < tasks; i++) run_task(body, i, 0);
    return;
  }
  pool.body = &body;
  pool.abort = abort_flag;
  pool.error = nullptr;
  pool.failed.store(false);
  pool.done.store(0);
  pool.active.store(active_);
  uint32_t call = Pool::call_of(pool.ticket.load()) + 1;
  pool.tasks.store(tasks);
  pool.ticket.store(uint64_t(call) << 32, std::memory_order_seq_cst);
  if (pool.sleeping.load(std::memory_order_seq_cst) > 0) {
    std::lock_guard lock(pool.mutex);
    pool.wake.notify_all();
  }
  pool.work(call, 0);
  // A worker that was put off the CPU in mid-task may need this core.
  for (int spins = 0; pool.done.load(std::memory_order_acquire) < tasks; spins++)
    if (spins < 2000)
      pause_cpu();
    else
      std::this_thread::yield();
  // Closed: a late worker of this call must not take the next call's number of tasks for its own.
  pool.ticket.store(uint64_t(call) << 32 | 0xffffffffu);
  if (pool.error) std::rethrow_exception(std::exchange(pool.error, nullptr));
}

}  // namespace rolegrad
