#include "model/role_router.h"

namespace rolegrad {

RoleRouter::Matcher RoleRouter::matcher(const std::string& pattern) {
  Matcher m{pattern, std::vector<int>(pattern.size() + 1, 0), 0};
  for (size_t i = 1, k = 0; i < pattern.size(); i++) {
    while (k > 0 && pattern[i] != pattern[k]) k = size_t(m.fail[k]);
    if (pattern[i] == pattern[k]) k++;
    m.fail[i + 1] = int(k);
  }
  return m;
}

bool RoleRouter::Matcher::feed(uint8_t byte) {
  while (state > 0 && uint8_t(pattern[size_t(state)]) != byte) state = fail[size_t(state)];
  if (uint8_t(pattern[size_t(state)]) == byte) state++;
  if (state < int(pattern.size())) return false;
  state = 0;
  return true;
}

RoleRouter::RoleRouter(const RouterConfig& config) : config_(&config) {
  for (const auto& span : config.spans) {
    opening_.push_back(matcher(span.open));
    closing_.push_back(matcher(span.close));
  }
}

void RoleRouter::restart() {
  for (auto& m : opening_) m.state = 0;
  for (auto& m : closing_) m.state = 0;
}

int8_t RoleRouter::sampled(std::span<const uint8_t> bytes, std::vector<Call>* calls) {
  for (uint8_t byte : bytes) {
    if (open_ < 0) {
      for (size_t i = 0; i < opening_.size(); i++) {
        if (!opening_[i].feed(byte)) continue;
        open_ = int(i);
        text_.clear();
        restart();
        break;
      }
    } else {
      text_.push_back(char(byte));
      if (closing_[size_t(open_)].feed(byte)) {
        text_.resize(text_.size() - closing_[size_t(open_)].pattern.size());
        if (calls && config_->spans[size_t(open_)].call) calls->push_back({open_, text_});
        open_ = -1;
        restart();
      } else {
        take_over();
      }
    }
  }
  return role();
}

void RoleRouter::take_over() {
  const std::string& now = config_->spans[size_t(open_)].open;
  for (size_t i = 0; i < config_->spans.size(); i++) {
    const std::string& longer = config_->spans[i].open;
    if (longer.size() != now.size() + text_.size() || !longer.starts_with(now) || !longer.ends_with(text_)) continue;
    open_ = int(i);
    text_.clear();
    restart();
    return;
  }
}

int8_t RoleRouter::given() {
  open_ = -1;
  text_.clear();
  restart();
  return config_->base;
}

}  // namespace rolegrad
