#include "train/trainer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "core/abort.h"
#include "core/error.h"
#include "train/target_loss.h"

namespace rolegrad {

namespace {

/// The dropout of one batch: rates by adapter, keys by row.
struct DropoutPlan {
  DropoutPlan(const PackedBatch& packed, const AdapterList& adapters, std::span<const uint64_t> sequence_keys) {
    for (const auto& adapter : adapters) rates.push_back(adapter ? float(adapter->spec().dropout) : 0.0f);
    if (std::all_of(rates.begin(), rates.end(), [](float rate) { return rate == 0; })) return;
    auto cuts = packed.batch.rows.cu_seqlens();
    if (sequence_keys.size() + 1 != cuts.size()) throw Error("ERR_SHAPE", "Expected a dropout key for every sequence");
    for (size_t s = 0; s + 1 < cuts.size(); s++)
      keys.insert(keys.end(), size_t(cuts[s + 1] - cuts[s]), sequence_keys[s]);
    dropout = {keys, packed.batch.positions, rates, 0};
  }
  DropoutPlan(const DropoutPlan&) = delete;
  const Dropout* get() const { return keys.empty() ? nullptr : &dropout; }

 private:
  std::vector<float> rates;
  std::vector<uint64_t> keys;
  Dropout dropout;
};

}  // namespace

Trainer::Trainer(Model& model, std::shared_ptr<AdapterStore> store, const Model* reference, TrainerOptions options)
    : model_(model),
      store_(std::move(store)),
      options_(options),
      measured_(model.backend()),
      reference_(reference),
      scalar_(model.backend().allocate((store_->adapters.size() + size_t(options.moment_roles)) * sizeof(double))),
      arena_(model.backend()) {
  if (reference) reference_arena_ = std::make_unique<Arena>(reference->backend());
  for (const auto& adapter : store_->adapters) {
    size_t bytes = adapter->layout().size() * sizeof(float);
    std::vector<Moments> moments(size_t(std::max(1, options.moment_roles)));
    for (auto& own : moments) own = {model.backend().allocate(bytes), model.backend().allocate(bytes)};
    slots_.push_back({AdapterGradient(model, adapter->spec()), std::move(moments), 0});
  }
  if (store_->tokens) tokens_ = std::make_unique<TokenTraining>(model, *store_->tokens);
}

Trainer::Trainer(Model& model, std::unique_ptr<FullParameters> full, const Model* reference, TrainerOptions options)
    : model_(model),
      options_(options),
      full_(std::move(full)),
      measured_(model.backend()),
      reference_(reference),
      scalar_(model.backend().allocate(sizeof(double))),
      arena_(model.backend()) {
  if (reference) reference_arena_ = std::make_unique<Arena>(reference->backend());
}

AdapterGradient* Trainer::entry(RoleGradients& gradients, size_t roles, size_t role, size_t adapter) {
  gradients.resize(std::max(gradients.size(), roles));
  gradients[role].resize(slots_.size());
  auto& own = gradients[role][adapter];
  if (!own) own = std::make_unique<AdapterGradient>(model_, store_->adapters[adapter]->spec());
  return own.get();
}

const AdapterGradient* Trainer::kept(int role, int adapter) const {
  if (size_t(role) >= kept_.size() || kept_[size_t(role)].empty()) return nullptr;
  return kept_[size_t(role)][size_t(adapter)].get();
}

std::vector<Trainer::Pass> Trainer::passes(const LossBatch& in, CrossRole cross_role) {
  const auto table = in.adapter_of_role;
  const size_t roles = table.size();
  std::vector<Pass> list;
  if (options_.moment_roles > 0) {
    // One adapter: what each role's loss gives it, apart; together that is the whole.
    for (size_t v = 0; v < roles; v++) {
      Pass role{std::vector<bool>(roles + 1, false), {entry(kept_, roles, v, 0)}, tokens_ != nullptr};
      role.roles[v + 1] = true;
      list.push_back(std::move(role));
    }
    return list;
  }
  if (full_ || cross_role != CrossRole::exact) {
    Pass all{std::vector<bool>(roles + 1, true)};
    for (auto& slot : slots_) all.sinks.push_back(&slot.gradient);
    all.tokens = tokens_ != nullptr;
    list.push_back(std::move(all));
  }
  auto only = [&](size_t adapter, AdapterGradient* sink) {
    std::vector<AdapterGradient*> sinks(slots_.size(), nullptr);
    sinks[adapter] = sink;
    return sinks;
  };
  if (!full_ && cross_role == CrossRole::exact) {
    for (size_t a = 0; a < slots_.size(); a++) {
      Pass own{std::vector<bool>(roles + 1, false), only(a, &slots_[a].gradient), tokens_ != nullptr};
      for (size_t v = 0; v < roles; v++) own.roles[v + 1] = table[v] == int32_t(a);
      list.push_back(std::move(own));
    }
    if (tokens_) {
      // Token rows get the gradient of the whole loss: also of what no adapter runs.
      Pass rest{std::vector<bool>(roles + 1, false), std::vector<AdapterGradient*>(slots_.size(), nullptr), true};
      rest.roles[0] = true;
      for (size_t v = 0; v < roles; v++) rest.roles[v + 1] = table[v] < 0;
      list.push_back(std::move(rest));
    }
  }
  for (size_t v = 0; options_.track && v < roles; v++) {
    Pass role{std::vector<bool>(roles + 1, false)};
    role.roles[v + 1] = true;
    if (cross_role == CrossRole::flow) {
      for (size_t a = 0; a < slots_.size(); a++) role.sinks.push_back(entry(kept_, roles, v, a));
    } else {
      // The loss of a role reaches its own adapter alone: where no other role shares it, that is what the slot has.
      if (table[v] < 0 || std::count(table.begin(), table.end(), table[v]) < 2) continue;
      role.sinks = only(size_t(table[v]), entry(kept_, roles, v, size_t(table[v])));
    }
    list.push_back(std::move(role));
  }
  return list;
}

LossResult Trainer::accumulate(const LossBatch& in, const LossOptions& o) {
  LossResult result = run(in, o, passes(in, o.cross_role));
  accumulated_ = true;
  stale_whole_ = options_.moment_roles > 0;
  return result;
}

std::vector<float> Trainer::reference_logprobs(const LossBatch& in, float temperature) {
  std::vector<uint8_t> wanted(in.ids.size());
  for (size_t i = 0; i < wanted.size(); i++) wanted[i] = in.weight[i] != 0;
  if (full_ && !reference_)
    throw Error("ERR_REFERENCE",
                "Expected a reference model (or refLogprobs) for klCoefficient > 0 in full training but received none");
  return score(reference_ ? *reference_ : model_, reference_ ? *reference_arena_ : arena_, in.ids, in.cu_seqlens,
               std::vector<int32_t>(in.ids.size(), -1), {}, temperature, false, wanted)
      .logprobs;
}

LossResult Trainer::run(const LossBatch& in, const LossOptions& o, const std::vector<Pass>& passes) {
  Backend& b = model_.backend();
  const size_t total = in.ids.size();
  LossResult result;
  result.logprob.assign(total, 0);
  result.per_token.assign(total, 0);
  Targets targets = targets_of(in.ids, in.cu_seqlens, [&](size_t i) { return in.weight[i] != 0; });
  if (targets.ids.empty()) return result;

  // The reference first: it needs the arena for itself.
  std::vector<float> reference(in.reference_logprob.begin(), in.reference_logprob.end());
  if (o.kind == ObjectiveKind::policy && o.beta != 0 && reference.empty())
    reference = reference_logprobs(in, o.temperature);

  std::vector<int32_t> adapter(total);
  for (size_t t = 0; t < total; t++) adapter[t] = in.roles[t] < 0 ? -1 : in.adapter_of_role[size_t(in.roles[t])];
  AdapterList adapters = store_ ? store_->list() : AdapterList{};
  arena_.reset();
  PackedBatch packed(in.ids, {in.cu_seqlens.begin(), in.cu_seqlens.end()}, std::move(adapter), int(adapters.size()));
  // All layers' keys and values are needed after the pass, or one layer's after another.
  KvPages& kv =
      arena_.kv_pages(options_.checkpointing ? 1 : int(model_.config().layers), model_.attention_shape(), packed.pages);
  Decoder decoder(model_);
  Saved saved{.inputs_only = options_.checkpointing, .layers = {}, .hidden = {}};
  const DropoutPlan plan(packed, adapters, in.dropout_key);
  Tensor hidden = decoder.forward(arena_, packed.batch, adapters, kv, &saved, plan.get());
  const size_t n = targets.ids.size();
  // Only adapters are trained: one pass over the vocabulary serves loss and gradient. A target without advantage and KL
  // has no gradient, whatever its ratio, unless it shares that with its sequence. Token rows need the gradient of their
  // own logits, so a second pass.
  const bool bonus = o.kind == ObjectiveKind::policy && o.entropy != 0;
  if (bonus && tokens_)
    throw Error("ERR_INVALID_ARGUMENT", "Expected no entropyCoefficient where rows of tokens are trained");
  std::vector<uint8_t> taught((full_ && !bonus) || tokens_ ? 0 : n);
  for (size_t r = 0; r < taught.size(); r++)
    taught[r] = o.kind == ObjectiveKind::sft || o.beta != 0 || bonus || o.terms.sequence_ratio ||
                in.advantage[size_t(targets.positions[r]) + 1] != 0;
  HeadRows head = run_head(model_, arena_, hidden, targets, o.temperature, taught, adapters.tokens.get());
  Tensor entropy{};
  std::vector<float> entropies;
  if (!taught.empty()) {
    entropy = arena_.tensor(int64_t(n), 1);
    b.head_entropy(entropy, head.normed, head.mean, head.lse, o.temperature);
    entropies = read_column(b, entropy);
    result.entropy.assign(total, std::numeric_limits<float>::quiet_NaN());
    for (size_t r = 0; r < n; r++)
      if (taught[r]) result.entropy[size_t(targets.positions[r]) + 1] = entropies[r];
  }

  const TargetLoss loss = target_loss(b, in, o, targets, head.logprob, reference, entropies, result);
  result.reference = std::move(reference);

  int64_t rows = int64_t(total), h = model_.config().hidden_size;
  Tensor dnormed = arena_.tensor(int64_t(n), h), draw = arena_.tensor(int64_t(n), h), dh = arena_.tensor(rows, h);
  const auto own_passes = std::count_if(passes.begin(), passes.end(), [](const Pass& pass) { return pass.tokens; });
  Rollback rollback(b, gradient_buffers(passes), gradients_before_, accumulated_ && !o.discard,
                    [this] { zero_gradients(); });
  if (full_ || tokens_) {
    Tensor dreplaced = tokens_ ? arena_.tensor(int64_t(n), adapters.tokens->count()) : Tensor{};
    b.head_backward(dnormed, full_ ? &full_->sinks().head : nullptr, head.normed, head.lse, model_.head(), targets.ids,
                    loss.coefficient, o.temperature, targets.group, head.replaced, dreplaced);
    if (tokens_) tokens_->head_backward(*adapters.tokens, dnormed, dreplaced);
    if (own_passes > 0) tokens_->add_head(dreplaced, head.normed, loss.coefficient, targets.group);
  } else {
    b.head_mean_backward(dnormed, head.mean, model_.head(), targets.ids, loss.coefficient, o.temperature);
  }
  if (bonus)
    b.head_entropy_backward(dnormed, full_ ? &full_->sinks().head : nullptr, head.normed, head.lse, entropy,
                            model_.head(), loss.entropy_coefficient, o.temperature, targets.group);
  b.rmsnorm_backward(draw, full_ ? &full_->sinks().final_norm : nullptr, dnormed, head.raw, model_.final_norm(),
                     float(model_.config().rms_norm_eps), targets.group, false);
  // Up to here a row depends on its own target alone: passes differ in the rows that they begin with. What the forward
  // pass saved is left as it was, and every pass works in the memory of the one before.
  Tensor dembedded = own_passes > 1 ? arena_.tensor(rows, h) : Tensor{};
  if (own_passes > 1) b.zero(dembedded);
  auto reuse = arena_.mark();
  for (const Pass& pass : passes) {
    std::vector<int32_t> chosen, positions;
    for (size_t r = 0; r < n; r++) {
      if (!pass.roles[size_t(in.roles[size_t(targets.positions[r])] + 1)]) continue;
      chosen.push_back(int32_t(r));
      positions.push_back(targets.positions[r]);
    }
    if (chosen.empty()) continue;
    arena_.release(reuse);
    Tensor begin = draw;
    if (chosen.size() < n) b.gather_rows(begin = arena_.tensor(int64_t(chosen.size()), h), draw, chosen);
    b.scatter_rows(dh, begin, positions);
    decoder.backward(arena_, dh, packed.batch, adapters, kv, saved, pass.sinks, full_ ? &full_->sinks() : nullptr,
                     o.cross_role == CrossRole::stop ? in.roles : std::span<const int8_t>{}, plan.get());
    if (!pass.tokens) continue;
    // Several passes are summed by row first, so that no bit depends on what else is in the batch.
    if (own_passes > 1)
      b.add(dembedded, dh);
    else
      tokens_->add_embedding(*adapters.tokens, dh, in.ids, packed.batch.rows.all());
  }
  if (own_passes > 1) tokens_->add_embedding(*adapters.tokens, dembedded, in.ids, packed.batch.rows.all());
  arena_.reset();  // may ask for memory, so before there is no way back
  check_aborted();
  rollback.commit();
  return result;
}

/// Everything that accumulate() adds to.
std::vector<GradTensor> Trainer::gradient_buffers(const std::vector<Pass>& passes) {
  std::vector<GradTensor> buffers;
  std::set<AdapterGradient*> seen;
  for (const Pass& pass : passes)
    for (auto* sink : pass.sinks)
      if (sink && seen.insert(sink).second) buffers.push_back(sink->flat());
  if (std::any_of(passes.begin(), passes.end(), [](const Pass& pass) { return pass.tokens; }))
    buffers.push_back(tokens_->sums());
  if (full_) full_->add_gradients(buffers);
  return buffers;
}

void Trainer::zero_gradients() {
  stale_whole_ = false;
  for (auto& slot : slots_) model_.backend().zero(slot.gradient.flat());
  for (auto& role : kept_)
    for (auto& gradient : role)
      if (gradient) model_.backend().zero(gradient->flat());
  if (tokens_) tokens_->zero();
  if (full_) full_->zero_gradients();
  accumulated_ = false;
}

}  // namespace rolegrad
