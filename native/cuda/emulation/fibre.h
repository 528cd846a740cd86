#pragma once

#include <cstddef>
#include <memory>

namespace rolegrad::emulation {

/// A stack of its own that runs a function piece by piece on the caller's thread: one thread of an emulated block.
/// The switch saves what the calling convention asks for and nothing else; ucontext's saves the signal mask too, by a
/// system call each way.
class Fibre {
 public:
  Fibre();
  ~Fibre();
  Fibre(const Fibre&) = delete;
  Fibre& operator=(const Fibre&) = delete;

  /// Begins anew: the next resume() calls entry(argument).
  void start(void (*entry)(void*), void* argument);
  /// Runs it until it yields or its entry returns. False once the entry has returned.
  bool resume();
  /// Called within: back to who resumed it.
  void yield();

  struct State;

 private:
  std::unique_ptr<State> state_;
};

}  // namespace rolegrad::emulation
