#pragma once
// The rows of the head: positions whose next token's log-probability is wanted.

#include <span>
#include <vector>

#include "model/model.h"
#include "model/token_rows.h"
#include "ops/arena.h"

namespace rolegrad {

/// Positions whose next token's log-probability is wanted, those tokens, and the rows cut by sequence.
struct Targets {
  std::vector<int32_t> positions, ids;
  Rows::Group group;
};

template <class Wanted>
Targets targets_of(std::span<const int32_t> ids, std::span<const int32_t> cu_seqlens, Wanted wanted) {
  Targets t;
  for (size_t s = 0; s + 1 < cu_seqlens.size(); s++) {
    for (int32_t i = cu_seqlens[s] + 1; i < cu_seqlens[s + 1]; i++)
      if (wanted(size_t(i))) {
        t.group.rows.push_back(int32_t(t.positions.size()));
        t.positions.push_back(i - 1);
        t.ids.push_back(ids[size_t(i)]);
      }
    if (int32_t(t.positions.size()) > t.group.cuts.back()) t.group.cuts.push_back(int32_t(t.positions.size()));
  }
  return t;
}

struct HeadRows {
  Tensor raw, normed, logprob, lse;
  Tensor mean;            // of head_logprobs_mean, where it was asked for
  LogitColumns replaced;  // by trained token rows
};

/// `taught` [rows]: which rows a gradient may come back to; empty: no mean is made. `tokens` may be null.
HeadRows run_head(const Model& model, Arena& arena, const Tensor& hidden, const Targets& targets, float temperature,
                  std::span<const uint8_t> taught, const TokenRows* tokens);

std::vector<float> read_column(Backend& b, const Tensor& column);

}  // namespace rolegrad
