#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace rolegrad {

struct RoleSpan {
  std::string open, close;  // bytes, not empty
  int8_t role = 0;
  bool call = true;  // its closing tag calls a tool
};

/// The router's tables (method.md, section 1): shared by all sequences.
struct RouterConfig {
  int8_t base = 0;
  std::vector<RoleSpan> spans;
};

/// One sequence's router: follows the bytes of sampled tokens, so that a tag counts alike whether it is one token or
/// several. A tag lies within one unbroken run of sampled tokens; within a span only its own closing tag counts, unless
/// the text goes on from its opening tag to a longer one that begins with it, whose span takes over; text that was not
/// sampled ends any open span.
class RoleRouter {
 public:
  explicit RoleRouter(const RouterConfig& config);

  struct Call {
    int span;
    std::string text;  // between the tags
  };

  /// A sampled token. Returns the role of its position: the state at its end. Calls that it completes are appended to
  /// `calls`.
  int8_t sampled(std::span<const uint8_t> bytes, std::vector<Call>* calls = nullptr);
  /// A prompt or tool-output token: base role, and whatever was open is closed.
  int8_t given();
  /// -1, or the span that is open.
  int open_span() const { return open_; }
  int8_t role() const { return open_ < 0 ? config_->base : config_->spans[size_t(open_)].role; }

 private:
  struct Matcher {
    std::string pattern;
    std::vector<int> fail;  // Knuth-Morris-Pratt
    int state = 0;
    bool feed(uint8_t byte);
  };
  static Matcher matcher(const std::string& pattern);
  void restart();
  void take_over();

  const RouterConfig* config_;
  std::vector<Matcher> opening_, closing_;
  int open_ = -1;
  std::string text_;
};

}  // namespace rolegrad
