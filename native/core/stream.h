#pragma once

#include <functional>

namespace rolegrad {

/// The order of the engine's work: one thread that runs jobs one after another and drives the executor. JavaScript only
/// awaits.
class Stream {
 public:
  static Stream& shared();
  void submit(std::function<void()> job);

 private:
  Stream();
  struct State;
  State* state_;
};

}  // namespace rolegrad
