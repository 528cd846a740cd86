#include "model/model.h"

#include <cmath>

#include "core/error.h"
#include "core/math.h"

namespace rolegrad {

const std::array<std::vector<std::string>, kGroups> kModuleNames = {{
    {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"},
    {"self_attn.o_proj"},
    {"mlp.gate_proj", "mlp.up_proj"},
    {"mlp.down_proj"},
}};

namespace {

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); i++) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

const StoredTensor& find(const std::map<std::string, StoredTensor>& tensors, const std::string& name,
                         const std::vector<int64_t>& shape) {
  auto it = tensors.find(name);
  if (it == tensors.end())
    throw Error("ERR_MODEL_TENSOR", "Expected the tensor " + name + " " + shape_text(shape) +
                                        " in the checkpoint but it is missing: is the download complete?");
  if (it->second.shape != shape)
    throw Error("ERR_MODEL_TENSOR", "Expected shape " + shape_text(shape) + " for the tensor " + name +
                                        " (from config.json) but received " + shape_text(it->second.shape));
  return it->second;
}

}  // namespace

void StoredTensor::release() const {
  if (!file) return;
  size_t bytes = dtype == DType::bf16 ? 2 : 4;
  for (int64_t d : shape) bytes *= size_t(d);
  file->release(data, bytes);
}

std::vector<float> widen_tensor(const StoredTensor& t) {
  int64_t n = 1;
  for (int64_t d : t.shape) n *= d;
  std::vector<float> values(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; i++)
    values[size_t(i)] = t.dtype == DType::bf16 ? bf16_to_float(static_cast<const bf16*>(t.data)[i])
                                               : static_cast<const float*>(t.data)[i];
  return values;
}

std::vector<double> rope_frequencies(double theta, int64_t head_dim, const RopeScaling& s) {
  constexpr double kTwoPi = 6.283185307179586;
  if (!(s.factor > 0 && s.low_factor > 0 && s.high_factor > s.low_factor && s.original_positions > 0))
    throw Error("ERR_MODEL_CONFIG", "Expected a rope scaling with 0 < factor and 0 < low factor < high factor");
  std::vector<double> frequencies;
  for (int64_t i = 0; i < head_dim / 2; i++) {
    double frequency = 1.0 / math::pow(theta, 2.0 * double(i) / double(head_dim));
    if (s.factor != 1) {
      // How often the angle turns within the original context decides: up to low_factor times is a long wavelength.
      double turns = s.original_positions * frequency / kTwoPi;
      double keep = (turns - s.low_factor) / (s.high_factor - s.low_factor);
      if (!(keep > 0)) keep = 0;
      if (keep > 1) keep = 1;
      frequency = (1 - keep) * (frequency / s.factor) + keep * frequency;
    }
    frequencies.push_back(frequency);
  }
  return frequencies;
}

Tensor Model::vector(const std::map<std::string, StoredTensor>& tensors, const std::string& name, int64_t n) {
  auto values = widen_tensor(find(tensors, name, {n}));
  int64_t ld = backend_->leading_dimension(n);
  vectors_.push_back(backend_->allocate(size_t(ld) * sizeof(float)));
  Tensor t{static_cast<float*>(vectors_.back()->data()), 1, n, ld};
  backend_->write(t, values.data());
  return t;
}

std::pair<int64_t, int64_t> Model::module_shape(int group, int m) const {
  const auto& c = config_;
  switch (group) {
    case kQkv:
      return {c.hidden_size, (m == 0 ? c.heads : c.kv_heads) * c.head_dim};
    case kOut:
      return {c.heads * c.head_dim, c.hidden_size};
    case kGateUp:
      return {c.hidden_size, c.intermediate_size};
    default:
      return {c.intermediate_size, c.hidden_size};
  }
}

bool Model::has_bias(int group) const {
  switch (group) {
    case kQkv:
      return config_.attention_bias;
    case kOut:
      return config_.output_bias;
    default:
      return config_.mlp_bias;
  }
}

Model::Model(std::unique_ptr<Backend> backend, ModelConfig config, const std::map<std::string, StoredTensor>& tensors,
             bool f32)
    : backend_(std::move(backend)), config_(config) {
  const auto& c = config_;
  frequencies_ = rolegrad::rope_frequencies(c.rope_theta, c.head_dim, c.rope_scaling);
  std::vector<std::vector<float>> widened;
  std::vector<const StoredTensor*> mapped;
  // What `source` widens must live until it is packed; the file's pages are given back as soon as they are.
  auto source = [&](const std::string& name, int64_t n, int64_t k, const float* bias) {
    const StoredTensor& t = find(tensors, name, {n, k});
    mapped.push_back(&t);
    if (!f32 || t.dtype == DType::f32) return WeightSource{t.data, t.dtype, n, k, bias};
    widened.push_back(widen_tensor(t));
    return WeightSource{widened.back().data(), DType::f32, n, k, bias};
  };
  auto pack = [&](const std::vector<WeightSource>& sources) {
    auto packed = backend_->pack(sources);
    widened.clear();
    for (const StoredTensor* t : mapped) t->release();
    mapped.clear();
    return packed;
  };
  embedding_ = pack({source("model.embed_tokens.weight", c.vocab_size, c.hidden_size, nullptr)});
  if (!c.tied) head_ = pack({source("lm_head.weight", c.vocab_size, c.hidden_size, nullptr)});
  final_norm_ = vector(tensors, "model.norm.weight", c.hidden_size);
  for (int64_t l = 0; l < c.layers; l++) {
    std::string prefix = "model.layers." + std::to_string(l) + ".";
    Layer layer;
    layer.attention_norm = vector(tensors, prefix + "input_layernorm.weight", c.hidden_size);
    layer.mlp_norm = vector(tensors, prefix + "post_attention_layernorm.weight", c.hidden_size);
    if (c.qk_norm) {
      layer.q_norm = vector(tensors, prefix + "self_attn.q_norm.weight", c.head_dim);
      layer.k_norm = vector(tensors, prefix + "self_attn.k_norm.weight", c.head_dim);
    }
    for (int g = 0; g < kGroups; g++) {
      std::vector<WeightSource> sources;
      std::vector<std::vector<float>> biases(kModuleNames[size_t(g)].size());
      for (size_t m = 0; m < kModuleNames[size_t(g)].size(); m++) {
        const std::string name = prefix + kModuleNames[size_t(g)][m];
        auto [k, n] = module_shape(g, int(m));
        if (has_bias(g)) biases[m] = widen_tensor(find(tensors, name + ".bias", {n}));
        sources.push_back(source(name + ".weight", n, k, biases[m].empty() ? nullptr : biases[m].data()));
      }
      layer.linear[size_t(g)] = pack(sources);
    }
    layers_.push_back(std::move(layer));
  }
}

AttentionShape Model::attention_shape() const {
  return {int(config_.heads), int(config_.kv_heads), int(config_.head_dim),
          float(1.0 / std::sqrt(double(config_.head_dim)))};
}

size_t Model::weight_bytes() const {
  size_t total = embedding_->bytes() + (head_ ? head_->bytes() : 0);
  for (const auto& layer : layers_)
    for (const auto& w : layer.linear) total += w->bytes();
  for (const auto& v : vectors_) total += v->bytes();
  return total;
}

}  // namespace rolegrad
