#include "train/angle_collector.h"

#include "core/abort.h"
#include "train/vocabulary_block.h"

namespace rolegrad {

void AngleMeasure::Collector::add(size_t i, const Part& part, const Prepared& q, size_t number, Arena& arena) {
  if (i == names_.size()) {
    names_.push_back(part.name), adapters_.push_back(part.adapter);
    within_.emplace_back(owner_.queries_.size());
    sums_.emplace_back(owner_.queries_.size());
  }
  const int64_t rollouts = q.rollouts(), units = owner_.options_.passes * rollouts;
  int64_t size = 0;
  for (const Term& term : part.terms) size += term.rows() * term.cols();
  auto& sums = sums_[i][number];
  sums.assign(size_t(owner_.options_.sums * size), 0.0f);
  blocks_.begin(units);
  int64_t at = 0;
  for (const Term& term : part.terms) {
    const int64_t step = std::clamp(kBlock / std::max<int64_t>(1, units * term.cols()), int64_t(1), term.rows());
    for (int64_t r = 0; r < term.rows(); r += step) {
      check_aborted();
      const int64_t n = std::min(step, term.rows() - r);
      const Tensor& block = blocks_.room(n * term.cols());
      const auto mark = arena.mark();
      Tensor entries{};
      if (!term.used.empty() && q.normed.rows > 0)
        entries = vocabulary_block(arena, owner_.model_, q.normed, q.lse, q.targets, owner_.options_.temperature, r, n);
      for (int64_t u = 0; u < units; u++) {
        const Tensor to = blocks_.vector(u, term.cols());
        if (q.taught[size_t(u)])
          form(to, term, entries, q, u / rollouts, u % rollouts, r, arena);
        else
          b_.zero(to);
      }
      arena.release(mark);
      sum(sums, block, q, size, at);
      blocks_.add();
      at += block.cols;
    }
  }
  within_[i][number] = blocks_.take();
  note_bytes();
  size_t held = 0;
  for (const auto& part_sums : sums_)
    for (const auto& own : part_sums) held += own.size() * sizeof(float);
  sum_bytes_ = std::max(sum_bytes_, held);
}

std::vector<ModuleGram> AngleMeasure::Collector::take() {
  std::vector<ModuleGram> list;
  const int64_t each = owner_.options_.sums, units = each * owner_.queries();
  for (size_t i = 0; i < names_.size(); i++) {
    const int64_t size = each > 0 ? int64_t(sums_[i][0].size()) / each : 0;
    const int64_t step = std::clamp(kBlock / std::max<int64_t>(1, units), int64_t(1), std::max<int64_t>(1, size));
    blocks_.begin(units);
    for (int64_t at = 0; at < size; at += step) {
      check_aborted();
      const int64_t n = std::min(step, size - at);
      blocks_.room(n);
      for (int64_t u = 0; u < units; u++)
        b_.write(blocks_.vector(u, n), sums_[i][size_t(u / each)].data() + (u % each) * size + at);
      blocks_.add();
    }
    list.push_back({names_[i], adapters_[i], std::move(within_[i]), blocks_.take()});
    sums_[i].clear();
  }
  note_bytes();
  begin();
  return list;
}

void AngleMeasure::Collector::note_bytes() {
  bytes_ =
      std::max(bytes_, blocks_.bytes() + one_.bytes() + (total_ ? total_->bytes() : 0) + host_.size() * sizeof(float));
}

void AngleMeasure::Collector::form(const Tensor& to, const Term& term, const Tensor& entries, const Prepared& q,
                                   int64_t p, int64_t s, int64_t r, Arena& arena) {
  const int64_t first = q.cuts[size_t(s)], targets = q.cuts[size_t(s) + 1] - first;
  const auto own = [&](const std::vector<Tensor>& by_pass) {
    const Tensor& x = by_pass[by_pass.size() == 1 ? 0 : size_t(p)];
    return term.targets ? x.row_range(first, targets) : x.row_range(q.begin(s), q.count(s));
  };
  Rows::Group of_targets;
  if (term.targets || !term.used.empty()) {
    for (int32_t i = 0; i < int32_t(targets); i++) of_targets.rows.push_back(i);
    of_targets.cuts.push_back(int32_t(targets));
  }
  const Rows::Group& group = term.targets ? of_targets : q.groups[size_t(s)][size_t(term.adapter + 1)];
  const GradTensor out = one_.zeroed(to.rows, to.cols);
  if (term.vocabulary > 0) {
    if (!term.used.empty())
      b_.weight_gradient(out, nullptr, entries.row_range(first, targets),
                         term.used[size_t(p)].row_range(first, targets), of_targets);
    if (!term.embedded.empty()) {
      std::vector<int32_t> ids;
      Rows::Group rows;
      for (int64_t t = 0; t < q.count(s); t++) {
        ids.push_back(int32_t(q.query.ids[size_t(q.begin(s) + t)] - r));
        if (ids.back() >= 0 && ids.back() < to.rows) rows.rows.push_back(int32_t(t));
      }
      rows.cuts.push_back(int32_t(rows.rows.size()));
      b_.embed_gradient(out, own(term.embedded), ids, rows);
    }
  } else if (term.norm.data) {
    const Tensor dy = own(term.left), x = own(term.right);
    const auto mark = arena.mark();
    const Tensor dx = arena.tensor(dy.rows, dy.cols);
    const float eps = float(owner_.model_.config().rms_norm_eps);
    if (term.heads)
      b_.rmsnorm_heads_backward(dx, &out, dy, x, term.norm, eps, group);
    else
      b_.rmsnorm_backward(dx, &out, dy, x, term.norm, eps, group, false);
    arena.release(mark);
  } else {
    b_.weight_gradient(out, nullptr, own(term.left).col_range(r, to.rows), own(term.right), group);
  }
  b_.round(to, out);  // a gradient of one sequence is one f32 chain an element: nothing is lost
}

void AngleMeasure::Collector::sum(std::vector<float>& sums, const Tensor& block, const Prepared& q, int64_t size,
                                  int64_t at) {
  const int64_t count = owner_.options_.sums;
  if (count == 0) return;
  grow(b_, total_, size_t(count * block.cols) * sizeof(float));
  const Tensor total{static_cast<float*>(total_->data()), count, block.cols, block.cols};
  b_.combine(total, q.query.sums, block);
  host_.resize(size_t(count * block.cols));
  b_.read(host_.data(), total);
  for (int64_t k = 0; k < count; k++)
    std::copy_n(host_.data() + k * block.cols, block.cols, sums.data() + k * size + at);
}

}  // namespace rolegrad
