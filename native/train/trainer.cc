#include "train/trainer.h"

#include <cmath>

#include "core/error.h"

namespace rolegrad {

namespace {

std::vector<int32_t> to_vector(std::span<const int32_t> x) { return {x.begin(), x.end()}; }

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
};

HeadRows run_head(const Model& model, Arena& arena, const Tensor& hidden, const Targets& targets, float temperature) {
  Backend& b = model.backend();
  int64_t n = int64_t(targets.positions.size()), h = model.config().hidden_size;
  HeadRows rows{arena.tensor(n, h), arena.tensor(n, h), arena.tensor(n, 1), arena.tensor(n, 1)};
  b.gather_rows(rows.raw, hidden, targets.positions);
  b.rmsnorm(rows.normed, rows.raw, model.final_norm(), float(model.config().rms_norm_eps));
  b.head_logprobs(rows.logprob, rows.lse, rows.normed, model.head(), targets.ids, temperature);
  return rows;
}

std::vector<float> read_column(Backend& b, const Tensor& column) {
  std::vector<float> values(static_cast<size_t>(column.rows));
  b.read(values.data(), column);
  return values;
}

KvPages& pages_for(const Model& model, Arena& arena, int64_t pages) {
  return arena.kv_pages(model.backend(), int(model.config().layers), model.attention_shape(), pages);
}

}  // namespace

ScoreResult score(const Model& model, Arena& arena, std::span<const int32_t> ids, std::span<const int32_t> cu_seqlens,
                  std::vector<int32_t> adapter, const AdapterList& adapters, float temperature, bool logits,
                  std::span<const uint8_t> wanted) {
  Backend& b = model.backend();
  arena.reset();
  PackedBatch packed(ids, to_vector(cu_seqlens), std::move(adapter), int(adapters.size()));
  KvPages& kv = pages_for(model, arena, packed.pages);
  Tensor hidden = Decoder(model).forward(arena, packed.batch, adapters, kv, nullptr);
  ScoreResult result;
  result.logprobs.assign(ids.size(), 0);
  Targets targets = targets_of(ids, cu_seqlens, [&](size_t i) { return wanted.empty() || wanted[i]; });
  if (!targets.ids.empty()) {
    HeadRows head = run_head(model, arena, hidden, targets, temperature);
    auto values = read_column(b, head.logprob);
    for (size_t i = 0; i < values.size(); i++) result.logprobs[size_t(targets.positions[i]) + 1] = values[i];
  }
  if (logits) {
    int64_t rows = int64_t(ids.size()), v = model.config().vocab_size;
    Tensor normed = arena.tensor(rows, model.config().hidden_size), out = arena.tensor(rows, v);
    b.rmsnorm(normed, hidden, model.final_norm(), float(model.config().rms_norm_eps));
    b.logits(out, normed, model.head());
    result.logits.resize(size_t(rows * v));
    b.read(result.logits.data(), out);
  }
  arena.reset();
  return result;
}

Trainer::Trainer(Model& model, std::shared_ptr<AdapterStore> store)
    : model_(model),
      store_(std::move(store)),
      scalar_(model.backend().allocate(sizeof(double))),
      arena_(model.backend()) {
  for (const auto& adapter : store_->adapters) {
    size_t bytes = adapter->layout().size() * sizeof(float);
    slots_.push_back(
        {AdapterGradient(model, adapter->spec()), model.backend().allocate(bytes), model.backend().allocate(bytes), 0});
  }
}

Trainer::Trainer(Model& model, std::unique_ptr<FullParameters> full, const Model* reference)
    : model_(model),
      full_(std::move(full)),
      reference_(reference),
      scalar_(model.backend().allocate(sizeof(double))),
      arena_(model.backend()) {}

LossResult Trainer::accumulate(const LossBatch& in, const LossOptions& o) {
  Backend& b = model_.backend();
  const size_t total = in.ids.size();
  LossResult result;
  result.logprob.assign(total, 0);
  result.per_token.assign(total, 0);
  Targets targets = targets_of(in.ids, in.cu_seqlens, [&](size_t i) { return in.weight[i] != 0; });
  if (targets.ids.empty()) return result;

  // The reference first: it needs the arena for itself.
  std::vector<float> reference(in.reference_logprob.begin(), in.reference_logprob.end());
  if (o.kind == ObjectiveKind::policy && o.beta != 0 && reference.empty()) {
    std::vector<uint8_t> wanted(total);
    for (size_t i = 0; i < total; i++) wanted[i] = in.weight[i] != 0;
    if (full_ && !reference_)
      throw Error(
          "ERR_REFERENCE",
          "Expected a reference model (or refLogprobs) for klCoefficient > 0 in full training but received none");
    reference = score(reference_ ? *reference_ : model_, arena_, in.ids, in.cu_seqlens, std::vector<int32_t>(total, -1),
                      {}, o.temperature, false, wanted)
                    .logprobs;
  }

  std::vector<int32_t> adapter(total);
  for (size_t t = 0; t < total; t++) adapter[t] = in.roles[t] < 0 ? -1 : in.adapter_of_role[size_t(in.roles[t])];
  AdapterList adapters = store_ ? store_->list() : AdapterList{};
  arena_.reset();
  PackedBatch packed(in.ids, to_vector(in.cu_seqlens), std::move(adapter), int(adapters.size()));
  KvPages& kv = pages_for(model_, arena_, packed.pages);
  Decoder decoder(model_);
  Saved saved;
  Tensor hidden = decoder.forward(arena_, packed.batch, adapters, kv, &saved);
  HeadRows head = run_head(model_, arena_, hidden, targets, o.temperature);
  auto logprob = read_column(b, head.logprob);

  const size_t n = targets.ids.size();
  std::vector<float> coefficient(n), per_token(n), old(n), ref(reference.empty() ? 0 : n);
  std::vector<double> advantage(n), weight(n);
  for (size_t r = 0; r < n; r++) {
    size_t t = size_t(targets.positions[r]) + 1;
    weight[r] = in.weight[t];
    if (o.kind == ObjectiveKind::policy) {
      old[r] = in.old_logprob[t];
      advantage[r] = in.advantage[t];
      if (!reference.empty()) ref[r] = reference[t];
    }
    result.logprob[t] = logprob[r];
  }
  if (o.kind == ObjectiveKind::policy) {
    result.sums = b.policy_loss(coefficient, per_token, head.logprob,
                                {old, ref, advantage, weight, o.clip_low, o.clip_high, o.beta});
  } else {
    for (size_t r = 0; r < n; r++) {
      coefficient[r] = float(weight[r]);
      per_token[r] = -logprob[r];
      result.sums.loss += weight[r] * -double(logprob[r]);
    }
  }
  for (size_t r = 0; r < n; r++) {
    if (!std::isfinite(coefficient[r]))
      throw Error("ERR_NOT_FINITE", "Expected a finite loss but the token at position " +
                                        std::to_string(targets.positions[r] + 1) +
                                        " of the batch has log-probability " + std::to_string(logprob[r]));
    result.per_token[size_t(targets.positions[r]) + 1] = per_token[r];
  }
  result.reference = std::move(reference);

  int64_t rows = int64_t(total), h = model_.config().hidden_size;
  Tensor dnormed = arena_.tensor(int64_t(n), h), draw = arena_.tensor(int64_t(n), h), dh = arena_.tensor(rows, h);
  b.head_backward(dnormed, full_ ? &full_->sinks().head : nullptr, head.normed, head.lse, model_.head(), targets.ids,
                  coefficient, o.temperature, targets.group);
  b.rmsnorm_backward(draw, full_ ? &full_->sinks().final_norm : nullptr, dnormed, head.raw, model_.final_norm(),
                     float(model_.config().rms_norm_eps), targets.group, false);
  b.scatter_rows(dh, draw, targets.positions);
  std::vector<AdapterGradient*> sinks;
  for (auto& slot : slots_) sinks.push_back(&slot.gradient);
  decoder.backward(arena_, dh, packed.batch, adapters, kv, saved, sinks, full_ ? &full_->sinks() : nullptr,
                   o.stop_cross_role ? in.roles : std::span<const int8_t>{});
  arena_.reset();
  return result;
}

Tensor Trainer::moments(const Memory& memory, int adapter) const {
  Tensor flat = store_->adapters[size_t(adapter)]->flat();
  flat.data = static_cast<float*>(memory.data());
  return flat;
}

std::vector<double> Trainer::gradient_norms() {
  Backend& b = model_.backend();
  GradTensor scalar{static_cast<double*>(scalar_->data()), 1, 1, 1};
  std::vector<double> norms;
  for (auto& slot : slots_) {
    b.zero(scalar);
    b.sum_of_squares(scalar.data, slot.gradient.flat());
    norms.push_back(std::sqrt(b.read_scalar(scalar.data)));
  }
  return norms;
}

std::vector<double> Trainer::apply(AdamWStep step, bool decay_vectors) {
  if (full_) {
    step.step = ++full_steps;
    return {full_->apply(step, decay_vectors)};
  }
  Backend& b = model_.backend();
  GradTensor scalar{static_cast<double*>(scalar_->data()), 1, 1, 1};
  std::vector<double> norms;
  for (size_t v = 0; v < slots_.size(); v++) {
    Slot& slot = slots_[v];
    auto& adapter = store_->adapters[v];
    if (adapter.use_count() > 1)
      adapter = std::make_shared<Adapter>(*adapter);  // pinned by a rollout: leave it its version
    b.zero(scalar);
    b.sum_of_squares(scalar.data, slot.gradient.flat());
    norms.push_back(std::sqrt(b.read_scalar(scalar.data)));
    step.step = ++slot.steps;
    b.adamw(adapter->flat(), slot.gradient.flat(), moments(*slot.first, int(v)), moments(*slot.second, int(v)), step,
            scalar.data);
    adapter->refresh();
  }
  return norms;
}

void Trainer::zero_gradients() {
  for (auto& slot : slots_) model_.backend().zero(slot.gradient.flat());
  if (full_) full_->zero_gradients();
}

}  // namespace rolegrad
