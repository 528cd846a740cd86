#include "core/executor.h"

#include <atomic>
#include <numeric>
#include <vector>

#include "core/error.h"
#include "harness.h"

using namespace rolegrad;

namespace {

TEST("every task runs once, on a worker of the pool") {
  Executor& executor = Executor::shared();
  for (int limit : {1, executor.threads()}) {
    executor.limit_threads(limit);
    for (int64_t tasks : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(tasks));
      std::atomic<bool> known{true};
      executor.parallel_for(tasks, [&](int64_t task, int worker) {
        runs[size_t(task)]++;
        if (worker < 0 || worker >= limit) known = false;
      });
      bool once = true;
      for (const auto& count : runs) once &= count == 1;
      CHECK(once);
      CHECK(known.load());
    }
  }
}

TEST("no two tasks run on one worker at once") {
  Executor& executor = Executor::shared();
  std::vector<std::atomic<int>> busy(static_cast<size_t>(executor.threads()));
  std::atomic<bool> alone{true};
  executor.parallel_for(5000, [&](int64_t, int worker) {
    if (busy[size_t(worker)]++ != 0) alone = false;
    busy[size_t(worker)]--;
  });
  CHECK(alone.load());
}

TEST("many small loops all finish") {
  Executor& executor = Executor::shared();
  int64_t sum = 0;
  std::vector<int64_t> part(16);
  for (int loop = 0; loop < 20000; loop++) {
    const int64_t tasks = 1 + loop % 16;
    executor.parallel_for(tasks, [&](int64_t task, int) { part[size_t(task)] = task + 1; });
    sum += std::accumulate(part.begin(), part.begin() + tasks, int64_t(0));
  }
  int64_t expected = 0;
  for (int loop = 0; loop < 20000; loop++) expected += int64_t(1 + loop % 16) * (2 + loop % 16) / 2;
  CHECK_EQUAL(sum, expected);
}

TEST("what a task throws reaches the caller, and the pool goes on") {
  Executor& executor = Executor::shared();
  for (int loop = 0; loop < 200; loop++) {
    for (int64_t tasks : {1, 2, 100})
      CHECK_THROWS("ERR_TEST", executor.parallel_for(tasks, [&](int64_t task, int) {
        if (task == tasks / 2) throw Error("ERR_TEST", "thrown by a task");
      }));
    CHECK_THROWS("ERR_TEST", executor.parallel_for(50, [](int64_t, int) { throw Error("ERR_TEST", "thrown by all"); }));
    std::atomic<int> ran{0};
    executor.parallel_for(64, [&](int64_t, int) { ran++; });
    CHECK_EQUAL(ran.load(), 64);
  }
}

TEST("the number of threads stays between one and the pool's") {
  Executor& executor = Executor::shared();
  CHECK(executor.threads() >= 1);
  CHECK(executor.threads() <= 256);
  for (int limit : {-3, 0, 1, 1000}) {
    executor.limit_threads(limit);
    std::atomic<int> ran{0};
    executor.parallel_for(10, [&](int64_t, int) { ran++; });
    CHECK_EQUAL(ran.load(), 10);
  }
  executor.limit_threads(executor.threads());
}

}  // namespace
