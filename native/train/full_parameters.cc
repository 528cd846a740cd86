#include "train/full_parameters.h"

#include <algorithm>
#include <cmath>

#include "core/abort.h"
#include "core/error.h"

namespace rolegrad {

namespace {

constexpr int64_t kBlockRows = 256;

}  // namespace

FullParameters::FullParameters(Model& model, const std::map<std::string, StoredTensor>& tensors,
                               std::shared_ptr<Memory>& masters)
    : model_(model) {
  const ModelConfig& c = model.config();
  Backend& b = model.backend();
  auto add = [&](const std::string& name, int64_t rows, int64_t cols) {
    entries_.push_back({name, size_, rows, cols, b.leading_dimension(cols), rows > 1});
    size_ += size_t(rows) * size_t(entries_.back().ld);
  };
  add("model.embed_tokens.weight", c.vocab_size, c.hidden_size);
  if (!c.tied) add("lm_head.weight", c.vocab_size, c.hidden_size);
  add("model.norm.weight", 1, c.hidden_size);
  for (int64_t l = 0; l < c.layers; l++) {
    std::string prefix = "model.layers." + std::to_string(l) + ".";
    add(prefix + "input_layernorm.weight", 1, c.hidden_size);
    add(prefix + "post_attention_layernorm.weight", 1, c.hidden_size);
    if (c.qk_norm) {
      add(prefix + "self_attn.q_norm.weight", 1, c.head_dim);
      add(prefix + "self_attn.k_norm.weight", 1, c.head_dim);
    }
    for (int g = 0; g < kGroups; g++)
      for (size_t m = 0; m < kModuleNames[size_t(g)].size(); m++) {
        auto [k, n] = model.module_shape(g, int(m));
        add(prefix + kModuleNames[size_t(g)][m] + ".weight", n, k);
        if (model.has_bias(g)) add(prefix + kModuleNames[size_t(g)][m] + ".bias", 1, n);
      }
  }
  tied_head_ = size_;
  size_t gradient_size = size_ + (c.tied ? size_t(c.vocab_size) * size_t(b.leading_dimension(c.hidden_size)) : 0);
  const bool filled = masters != nullptr;
  values_ = filled ? masters : std::shared_ptr<Memory>(b.allocate(size_ * sizeof(float)));
  first_ = b.allocate(size_ * sizeof(float));
  second_ = b.allocate(size_ * sizeof(float));
  gradients_ = b.allocate(gradient_size * sizeof(double));
  scalar_ = b.allocate(sizeof(double));
  for (const auto& e : entries_) {
    if (filled) break;
    auto it = tensors.find(e.name);
    if (it == tensors.end())
      throw Error("ERR_MODEL_TENSOR", "Expected the tensor " + e.name + " in the checkpoint but it is missing");
    b.write(value(e), widen_tensor(it->second).data());
    it->second.release();
  }
  masters = values_;

  sinks_.embedding = gradient(entry("model.embed_tokens.weight"));
  sinks_.head = sinks_.embedding;
  if (c.tied)
    sinks_.head.data = gradients() + tied_head_;
  else
    sinks_.head = gradient(entry("lm_head.weight"));
  sinks_.final_norm = gradient(entry("model.norm.weight"));
  for (int64_t l = 0; l < c.layers; l++) {
    std::string prefix = "model.layers." + std::to_string(l) + ".";
    FullGradient::LayerGradient layer;
    layer.attention_norm = gradient(entry(prefix + "input_layernorm.weight"));
    layer.mlp_norm = gradient(entry(prefix + "post_attention_layernorm.weight"));
    if (c.qk_norm) {
      layer.q_norm = gradient(entry(prefix + "self_attn.q_norm.weight"));
      layer.k_norm = gradient(entry(prefix + "self_attn.k_norm.weight"));
    }
    for (int g = 0; g < kGroups; g++)
      for (const auto& module : kModuleNames[size_t(g)]) {
        layer.weight[size_t(g)].push_back(gradient(entry(prefix + module + ".weight")));
        if (model.has_bias(g)) layer.bias[size_t(g)].push_back(gradient(entry(prefix + module + ".bias")));
      }
    sinks_.layers.push_back(std::move(layer));
  }

  if (c.tied)
    block_ =
        b.allocate(size_t(std::min(kBlockRows, c.vocab_size) * b.leading_dimension(c.hidden_size)) * sizeof(double));
  add_place(model.embedding(), 0, "model.embed_tokens", false);
  if (!c.tied) add_place(model.head(), 0, "lm_head", false);
  add_place(model.final_norm(), "model.norm.weight");
  for (int64_t l = 0; l < c.layers; l++) {
    const std::string prefix = "model.layers." + std::to_string(l) + ".";
    Layer& layer = model.layer(l);
    add_place(layer.attention_norm, prefix + "input_layernorm.weight");
    add_place(layer.mlp_norm, prefix + "post_attention_layernorm.weight");
    if (c.qk_norm) {
      add_place(layer.q_norm, prefix + "self_attn.q_norm.weight");
      add_place(layer.k_norm, prefix + "self_attn.k_norm.weight");
    }
    for (int g = 0; g < kGroups; g++)
      for (size_t m = 0; m < kModuleNames[size_t(g)].size(); m++)
        add_place(*layer.linear[size_t(g)], int(m), prefix + kModuleNames[size_t(g)][m], model.has_bias(g));
  }
}

void FullParameters::add_place(const Tensor& vector, const std::string& name) {
  places_.push_back({vector, nullptr, 0, value(entry(name)), {}});
}

void FullParameters::add_place(PackedWeight& weight, int module, const std::string& name, bool biased) {
  places_.push_back(
      {{}, &weight, module, value(entry(name + ".weight")), biased ? value(entry(name + ".bias")) : Tensor{}});
}

const FullParameters::Entry& FullParameters::entry(const std::string& name) const {
  for (const auto& e : entries_)
    if (e.name == name) return e;
  throw Error("ERR_NO_PARAMETER", "Expected the name of a parameter but received " + name);
}

Tensor FullParameters::first_moment(const Entry& e) const {
  return {static_cast<float*>(first_->data()) + e.offset, e.rows, e.cols, e.ld};
}
Tensor FullParameters::second_moment(const Entry& e) const {
  return {static_cast<float*>(second_->data()) + e.offset, e.rows, e.cols, e.ld};
}
GradTensor FullParameters::gradient(const Entry& e) const { return {gradients() + e.offset, e.rows, e.cols, e.ld}; }

std::vector<double> FullParameters::read_gradient(const Entry& e) {
  settle();
  std::vector<double> values(static_cast<size_t>(e.rows * e.cols));
  model_.backend().read(values.data(), gradient(e));
  if (model_.config().tied && e.name == "model.embed_tokens.weight") {
    std::vector<double> head(values.size());
    model_.backend().read(head.data(), sinks_.head);
    for (size_t i = 0; i < values.size(); i++) values[i] += head[i];
  }
  return values;
}

void FullParameters::add_gradients(std::vector<GradTensor>& buffers) {
  settle();
  for (const auto& e : entries_) buffers.push_back(gradient(e));
  if (model_.config().tied) buffers.push_back(sinks_.head);
}

void FullParameters::settle() {
  if (!stale_) return;
  for (const auto& e : entries_) model_.backend().zero(gradient(e));
  model_.backend().zero(sinks_.head);
  stale_ = false;
}

void FullParameters::sum_squares() {
  settle();
  Backend& b = model_.backend();
  auto* sum = static_cast<double*>(scalar_->data());
  b.zero(GradTensor{sum, 1, 1, 1});
  const Entry& table = entries_[0];
  if (!model_.config().tied) b.sum_of_squares(sum, gradient(table));
  // The two uses of a tied table are one gradient. They are added block by block, apart: what was accumulated is still
  // as it was if the step comes to nothing. Rows are summed in order, so that the blocks change no bit.
  for (int64_t r = 0; model_.config().tied && r < table.rows; r += kBlockRows) {
    const int64_t rows = std::min(kBlockRows, table.rows - r);
    const GradTensor block{static_cast<double*>(block_->data()), rows, table.cols, table.ld};
    b.zero(block);
    for (const GradTensor& use : {gradient(table), sinks_.head})
      b.add(block, {use.data + r * use.ld, rows, use.cols, use.ld});
    b.sum_of_squares(sum, block);
  }
  for (size_t i = 1; i < entries_.size(); i++) b.sum_of_squares(sum, gradient(entries_[i]));
}

double FullParameters::norm() {
  sum_squares();
  return std::sqrt(model_.backend().read_scalar(static_cast<double*>(scalar_->data())));
}

void FullParameters::apply(const AdamWStep& step, bool decay_vectors, std::span<const double> limits,
                           MeasuredStep& measured, StepResult& result) {
  Backend& b = model_.backend();
  result.gradient_norm.push_back(norm());
  if (!result.within(limits)) return;
  result.update_norm.reserve(1), result.norm.reserve(1);
  // All that can fail is done. From here on the step is taken whole.
  check_aborted();
  AbortScope whole(nullptr);
  if (model_.config().tied) {
    b.add(gradient(entries_[0]), sinks_.head);
    b.zero(sinks_.head);
  }
  measured.begin();
  for (const auto& e : entries_) {
    AdamWStep own = step;
    if (!e.decays && !decay_vectors) own.weight_decay = 0;
    measured.adamw(value(e), gradient(e), first_moment(e), second_moment(e), own,
                   static_cast<double*>(scalar_->data()));
  }
  measured.end(result);
  publish(model_.updates() + 1);
  result.taken = true;
}

void FullParameters::publish(uint64_t updates) {
  AbortScope whole(nullptr);
  Backend& b = model_.backend();
  for (const Place& p : places_)
    if (p.weight)
      b.repack(*p.weight, p.module, p.value, p.bias.data ? &p.bias : nullptr);
    else
      b.copy(p.vector, p.value);
  model_.set_updates(updates);
}

}  // namespace rolegrad
