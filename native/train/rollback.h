#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "ops/backend.h"

namespace rolegrad {

/// Makes what is added to gradient buffers happen whole or not at all: where commit() is not reached (an abort, memory
/// that runs out, an exception of a task) the buffers are what they were, or zero where the caller wants them
/// discarded.
class Rollback {
 public:
  /// What the buffers held, kept between uses so that a second accumulation allocates nothing.
  using Copy = std::unique_ptr<Memory>;

  /// `keep`: copy what is there; otherwise (nothing is there, or it may go) an end without commit() calls `zero`.
  Rollback(Backend& backend, std::vector<GradTensor> buffers, Copy& copy, bool keep, std::function<void()> zero);
  ~Rollback();
  Rollback(const Rollback&) = delete;
  Rollback& operator=(const Rollback&) = delete;

  void commit() { committed_ = true; }

 private:
  Backend& backend_;
  std::vector<GradTensor> buffers_;
  Copy& copy_;
  bool keep_, committed_ = false;
  std::function<void()> zero_;
};

}  // namespace rolegrad
