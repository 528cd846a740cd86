#include "core/stream.h"

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "core/abort.h"
#include "core/executor.h"

namespace rolegrad {

struct Stream::State {
  struct Entry {
    Ticket ticket;
    Job job;
    std::shared_ptr<std::atomic<bool>> stop;
  };
  std::mutex mutex;
  std::condition_variable wake, rest;
  std::deque<Entry> jobs;
  Ticket next = 1;
  std::shared_ptr<std::atomic<bool>> running;  // the flag of the job under way
  bool ending = false;

  void loop() {
    set_float_environment();
    for (;;) {
      Entry entry;
      {
        std::unique_lock lock(mutex);
        running.reset();
        rest.notify_all();
        wake.wait(lock, [&] { return !jobs.empty() && !ending; });
        entry = std::move(jobs.front());
        jobs.pop_front();
        running = entry.stop;
      }
      AbortScope scope(entry.stop.get());
      entry.job(true);
    }
  }
};

Stream::Stream() : state_(new State) {
  try {
    std::thread([state = state_] { state->loop(); }).detach();
  } catch (const std::system_error& error) {
    delete state_;
    throw Error("ERR_THREADS", std::string("Expected a thread for the engine's work but received ") + error.what());
  }
#if !defined(_WIN32)
  // On Windows the process has ended all other threads by then.
  std::atexit([] { Stream::shared().end(); });
#endif
}

Stream& Stream::shared() {
  // Never destroyed: its thread may be inside a job when the process ends.
  static Stream* stream = new Stream;
  return *stream;
}

Stream::Ticket Stream::submit(Job job, std::shared_ptr<std::atomic<bool>> stop) {
  Ticket ticket;
  {
    std::lock_guard lock(state_->mutex);
    ticket = state_->next++;
    state_->jobs.push_back({ticket, std::move(job), std::move(stop)});
  }
  state_->wake.notify_one();
  return ticket;
}

bool Stream::cancel(Ticket ticket) {
  Job job;
  {
    std::lock_guard lock(state_->mutex);
    auto& jobs = state_->jobs;
    for (auto it = jobs.begin(); it != jobs.end(); ++it)
      if (it->ticket == ticket) {
        job = std::move(it->job);
        jobs.erase(it);
        break;
      }
  }
  if (!job) return false;
  job(false);
  return true;
}

void Stream::end() {
  std::unique_lock lock(state_->mutex);
  state_->ending = true;
  if (state_->running) state_->running->store(true);
  // A job looks at its flag every few milliseconds; what does not come to rest is left behind.
  state_->rest.wait_for(lock, std::chrono::seconds(5), [&] { return !state_->running; });
}

}  // namespace rolegrad
