#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

namespace rolegrad {

/// The order of the engine's work: one thread that runs jobs one after another and drives the executor. JavaScript only
/// awaits.
class Stream {
 public:
  /// run: do the work; otherwise it was taken back (or the process is ending) and never will be done.
  using Job = std::function<void(bool run)>;
  using Ticket = uint64_t;

  static Stream& shared();

  /// `stop`, where it is set, aborts the work of the job (core/abort.h).
  Ticket submit(Job job, std::shared_ptr<std::atomic<bool>> stop);
  /// Takes back a job that has not begun: job(false) is called on this thread. False where it has begun or ended.
  bool cancel(Ticket ticket);
  /// Stops the job that runs, starts no other, and waits a few seconds for the stream's thread to come to rest: what
  /// the end of the process does, so that nothing computes on what it tears down.
  void end();

 private:
  Stream();
  struct State;
  State* state_;
};

}  // namespace rolegrad
