#include "core/stream.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "core/executor.h"

namespace rolegrad {

struct Stream::State {
  std::mutex mutex;
  std::condition_variable wake;
  std::deque<std::function<void()>> jobs;
};

Stream::Stream() : state_(new State) {
  std::thread([state = state_] {
    set_float_environment();
    for (;;) {
      std::function<void()> job;
      {
        std::unique_lock lock(state->mutex);
        state->wake.wait(lock, [&] { return !state->jobs.empty(); });
        job = std::move(state->jobs.front());
        state->jobs.pop_front();
      }
      job();
    }
  }).detach();
}

Stream& Stream::shared() {
  // Never destroyed: its thread may be inside a job when the process ends.
  static Stream* stream = new Stream;
  return *stream;
}

void Stream::submit(std::function<void()> job) {
  {
    std::lock_guard lock(state_->mutex);
    state_->jobs.push_back(std::move(job));
  }
  state_->wake.notify_one();
}

}  // namespace rolegrad
