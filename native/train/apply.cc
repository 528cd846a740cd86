// Norms, clipping and AdamW: what a trainer does with the gradients that its buffers hold.
#include <cmath>

#include "core/abort.h"
#include "train/trainer.h"

namespace rolegrad {

Tensor Trainer::moments(const Memory& memory, int adapter) const {
  Tensor flat = store_->adapters[size_t(adapter)]->flat();
  flat.data = static_cast<float*>(memory.data());
  return flat;
}

void Trainer::whole() {
  if (!stale_whole_) return;
  Backend& b = model_.backend();
  const GradTensor sum = slots_[0].gradient.flat();
  b.zero(sum);
  for (int v = 0; v < options_.moment_roles; v++)
    if (const AdapterGradient* own = kept(v, 0)) b.add(sum, own->flat());
  stale_whole_ = false;
}

double Trainer::squares(const AdapterGradient& gradient) {
  Backend& b = model_.backend();
  GradTensor scalar{static_cast<double*>(scalar_->data()), 1, 1, 1};
  b.zero(scalar);
  b.sum_of_squares(scalar.data, gradient.flat());
  return b.read_scalar(scalar.data);
}

std::vector<double> Trainer::gradient_norms() {
  whole();
  std::vector<double> norms;
  if (full_) norms.push_back(full_->norm());
  for (auto& slot : slots_) norms.push_back(std::sqrt(squares(slot.gradient)));
  if (tokens_) norms.push_back(tokens_->norm());
  return norms;
}

std::vector<double> Trainer::role_norms(std::span<const int32_t> adapter_of_role) {
  std::vector<double> norms;
  for (size_t v = 0; v < adapter_of_role.size(); v++) {
    double sum = 0;
    bool apart = false;
    for (size_t a = 0; a < slots_.size(); a++)
      if (const AdapterGradient* own = kept(int(v), int(a))) sum += squares(*own), apart = true;
    // Not kept apart where no other role's loss reaches the adapter.
    if (!apart && options_.moment_roles == 0 && adapter_of_role[v] >= 0)
      sum = squares(slots_[size_t(adapter_of_role[v])].gradient);
    norms.push_back(std::sqrt(sum));
  }
  return norms;
}

/// Versions that rollouts hold on to stay theirs: the step is taken on copies.
void Trainer::unpin() {
  for (auto& adapter : store_->adapters)
    if (adapter.use_count() > 1) adapter = std::make_shared<Adapter>(*adapter);
  if (tokens_ && store_->tokens.use_count() > 1) store_->tokens = std::make_shared<TokenRows>(*store_->tokens);
}

/// The token rows' part of a step, its last.
void Trainer::finish(const AdamWStep& step, StepResult& result) {
  if (tokens_) {
    measured_.begin();
    tokens_->apply(*store_->tokens, step, measured_);
    measured_.end(result);
  }
  result.taken = true;
}

StepResult Trainer::apply(AdamWStep step, bool decay_vectors, std::span<const double> limits) {
  if (options_.moment_roles > 0) return apply_by_role(step, limits);
  StepResult result;
  if (full_) {
    step.step = full_steps + 1;
    full_->apply(step, decay_vectors, limits, measured_, result);
    if (result.taken) full_steps++;
    return result;
  }
  Backend& b = model_.backend();
  auto* sums = static_cast<double*>(scalar_->data());
  for (size_t v = 0; v < slots_.size(); v++) {
    b.zero(GradTensor{sums + v, 1, 1, 1});
    b.sum_of_squares(sums + v, slots_[v].gradient.flat());
    result.gradient_norm.push_back(std::sqrt(b.read_scalar(sums + v)));
  }
  if (tokens_) result.gradient_norm.push_back(tokens_->norm());
  if (!result.within(limits)) return result;
  unpin();
  result.update_norm.reserve(slots_.size() + 1), result.norm.reserve(slots_.size() + 1);
  // All that can fail is done. From here on the step is taken whole.
  check_aborted();
  AbortScope whole(nullptr);
  for (size_t v = 0; v < slots_.size(); v++) {
    Slot& slot = slots_[v];
    auto& adapter = store_->adapters[v];
    step.step = ++slot.steps;
    measured_.begin();
    const Moments& own = slot.moments[0];
    measured_.adamw(adapter->flat(), slot.gradient.flat(), moments(*own.first, int(v)), moments(*own.second, int(v)),
                    step, sums + v);
    measured_.end(result);
    adapter->refresh();
  }
  finish(step, result);
  return result;
}

/// The loss of each role takes an AdamW step of its own on the one adapter: clipped by its own norm, with its own
/// moments, the roles in their order. Weight decay is applied once, with the first.
StepResult Trainer::apply_by_role(AdamWStep step, std::span<const double> limits) {
  Backend& b = model_.backend();
  StepResult result;
  const auto roles = size_t(options_.moment_roles);
  for (size_t v = 0; v < roles; v++) {
    const double sum = squares(*entry(kept_, roles, v, 0));
    result.role_gradient_norm.push_back(std::sqrt(sum));
  }
  result.gradient_norm = gradient_norms();
  if (!result.within(limits)) return result;
  auto* sums = static_cast<double*>(scalar_->data()) + 1;
  for (size_t v = 0; v < roles; v++) {
    b.zero(GradTensor{sums + v, 1, 1, 1});
    b.sum_of_squares(sums + v, kept_[v][0]->flat());
  }
  unpin();
  auto& adapter = store_->adapters[0];
  Slot& slot = slots_[0];
  std::vector<MeasuredStep::Part> parts;
  for (size_t v = 0; v < roles; v++)
    parts.push_back(
        {kept_[v][0]->flat(), moments(*slot.moments[v].first, 0), moments(*slot.moments[v].second, 0), sums + v});
  measured_.reserve(roles);
  result.update_norm.reserve(2), result.norm.reserve(2), result.role_update_norm.reserve(roles);
  // All that can fail is done. From here on the step is taken whole.
  check_aborted();
  AbortScope whole_step(nullptr);
  step.step = ++slot.steps;
  measured_.begin();
  measured_.adamw(adapter->flat(), parts, step);
  measured_.end(result);
  adapter->refresh();
  finish(step, result);
  return result;
}

}  // namespace rolegrad
