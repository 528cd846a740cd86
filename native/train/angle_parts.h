#pragma once
// What AngleMeasure hands from the passes through the layers to the collector of inner products.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "train/angles.h"

namespace rolegrad {

/// A query on its way through the layers.
struct AngleMeasure::Prepared {
  Prepared(AngleQuery q, const AdapterList& adapters, int passes)
      : query(std::move(q)), packed(query.ids, query.cu_seqlens, adapter_of_rows(query), int(adapters.size())) {
    const auto& cu = query.cu_seqlens;
    const auto adapter = packed.batch.rows.adapter();
    for (size_t s = 0; s + 1 < cu.size(); s++) {
      std::vector<Rows::Group> by_adapter(adapters.size() + 1);
      for (int32_t t = cu[s]; t < cu[s + 1]; t++) {
        by_adapter[0].rows.push_back(t - cu[s]);
        if (adapter[size_t(t)] >= 0) by_adapter[size_t(adapter[size_t(t)]) + 1].rows.push_back(t - cu[s]);
      }
      for (auto& group : by_adapter) group.cuts.push_back(int32_t(group.rows.size()));
      groups.push_back(std::move(by_adapter));
      longest = std::max<int64_t>(longest, cu[s + 1] - cu[s]);
    }
    for (int p = 0; p < passes; p++)
      for (size_t s = 0; s + 1 < cu.size(); s++) {
        const float* w = query.weights.data() + size_t(p) * query.ids.size();
        taught.push_back(std::any_of(w + cu[s], w + cu[s + 1], [](float x) { return x != 0; }));
      }
  }
  static std::vector<int32_t> adapter_of_rows(const AngleQuery& q) {
    std::vector<int32_t> adapter;
    for (int8_t role : q.roles) adapter.push_back(role < 0 ? -1 : q.adapter_of_role[size_t(role)]);
    return adapter;
  }
  int64_t rollouts() const { return int64_t(query.cu_seqlens.size()) - 1; }
  int64_t begin(int64_t s) const { return query.cu_seqlens[size_t(s)]; }
  int64_t count(int64_t s) const { return query.cu_seqlens[size_t(s) + 1] - begin(s); }

  AngleQuery query;
  PackedBatch packed;
  Saved saved{.inputs_only = true, .layers = {}, .hidden = {}};
  std::vector<Tensor> dh;  // by pass
  int64_t longest = 0;
  std::vector<std::vector<Rows::Group>> groups;  // by sequence, and adapter + 1 (0: all rows), from its first row
  std::vector<bool> taught;                      // [passes, B]
  // Of the head, where tables are measured: rows of targets by sequence.
  Tensor raw, normed, lse;
  std::vector<Tensor> dnormed;
  std::vector<int32_t> positions, targets;
  std::vector<int32_t> cuts{0};
};

/// A part of a module's gradient, [rows, cols]: left^T right over the rows of an adapter (or all of them), or a norm's,
/// or that of a table with a row for each entry of the vocabulary.
struct AngleMeasure::Term {
  std::vector<Tensor> left, right;  // by pass; one: the same for all
  int adapter = -1;
  Tensor norm{};  // its weight: left is its dy, right its x
  bool heads = false;
  bool targets = false;            // the rows are those of the head
  int64_t vocabulary = 0;          // a table's: its entries
  std::vector<Tensor> used{};      // of the head: its rows h times coefficient / temperature, by pass
  std::vector<Tensor> embedded{};  // of the embedding: the gradient of the embedded ids, by pass
  int64_t rows() const { return vocabulary > 0 ? vocabulary : norm.data ? 1 : left[0].cols; }
  int64_t cols() const {
    if (vocabulary > 0) return (used.empty() ? embedded : used)[0].cols;
    return norm.data ? norm.cols : right[0].cols;
  }
};

struct AngleMeasure::Part {
  std::string name;
  int adapter = -1;
  std::vector<Term> terms;
};

}  // namespace rolegrad
