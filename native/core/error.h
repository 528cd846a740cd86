#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace rolegrad {

/// What the engine throws for its caller: a stable code ("ERR_SHAPE") and a message that says what was expected, what
/// came and where. JavaScript gets it as a RolegradError.
class Error : public std::runtime_error {
 public:
  Error(std::string code, const std::string& message) : std::runtime_error(message), code_(std::move(code)) {}
  const std::string& code() const noexcept { return code_; }

 private:
  std::string code_;
};

}  // namespace rolegrad
