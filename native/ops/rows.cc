#include "ops/rows.h"

#include <string>
#include <utility>

#include "core/error.h"

namespace rolegrad {

Rows::Rows(std::vector<int32_t> cu_seqlens, std::vector<int32_t> adapter, int adapters)
    : cu_seqlens_(std::move(cu_seqlens)), adapter_(std::move(adapter)), by_adapter_(size_t(adapters)) {
  if (cu_seqlens_.empty() || cu_seqlens_.front() != 0 || cu_seqlens_.back() != int32_t(adapter_.size()))
    throw Error("ERR_INVALID_ARGUMENT", "Expected cuSeqlens to run from 0 to the number of tokens");
  for (size_t s = 0; s + 1 < cu_seqlens_.size(); s++)
    if (cu_seqlens_[s + 1] < cu_seqlens_[s])
      throw Error("ERR_INVALID_ARGUMENT", "Expected cuSeqlens to increase but entry " + std::to_string(s + 1) + " is " +
                                              std::to_string(cu_seqlens_[s + 1]));
  for (size_t s = 0; s + 1 < cu_seqlens_.size(); s++) {
    for (int32_t t = cu_seqlens_[s]; t < cu_seqlens_[s + 1]; t++) {
      all_.rows.push_back(t);
      int32_t a = adapter_[size_t(t)];
      if (a < -1 || a >= adapters) throw Error("ERR_ROLE_RANGE", "Expected an adapter index within the adapters given");
      if (a >= 0)
        by_adapter_[size_t(a)].rows.push_back(t);
      else
        order_.push_back(t);
    }
    all_.cuts.push_back(int32_t(all_.rows.size()));
    for (auto& group : by_adapter_)
      if (int32_t(group.rows.size()) > group.cuts.back()) group.cuts.push_back(int32_t(group.rows.size()));
  }
  for (const auto& group : by_adapter_) order_.insert(order_.end(), group.rows.begin(), group.rows.end());
}

Rows::Rows(std::vector<int32_t> cu_seqlens)
    : Rows(cu_seqlens, std::vector<int32_t>(size_t(cu_seqlens.empty() ? 0 : cu_seqlens.back()), -1), 0) {}

}  // namespace rolegrad
