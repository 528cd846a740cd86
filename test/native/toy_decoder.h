#pragma once
// A small random decoder with two adapters whose text makes calls: what the tests of the generator run on.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/generator.h"
#include "op_cases.h"

namespace rolegrad::testing {

class ToyDecoder {
 public:
  static constexpr int kVocabulary = 41, kLayers = 2;

  explicit ToyDecoder(std::unique_ptr<Backend> backend, uint64_t seed = 7, int layers = kLayers) : numbers_(seed) {
    ModelConfig c;
    c.vocab_size = kVocabulary, c.hidden_size = 24, c.layers = layers, c.heads = 3, c.kv_heads = 1, c.head_dim = 8;
    c.intermediate_size = 20, c.tied = false, c.attention_bias = true;
    put("model.embed_tokens.weight", {kVocabulary, 24});
    put("lm_head.weight", {kVocabulary, 24});
    put("model.norm.weight", {24}, 1);
    for (int l = 0; l < layers; l++) {
      const std::string prefix = "model.layers." + std::to_string(l) + ".";
      put(prefix + "input_layernorm.weight", {24}, 1);
      put(prefix + "post_attention_layernorm.weight", {24}, 1);
      for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
        const int64_t n = name[0] == 'q' ? 24 : 8;
        put(prefix + "self_attn." + name + ".weight", {n, 24});
        put(prefix + "self_attn." + name + ".bias", {n});
      }
      put(prefix + "self_attn.o_proj.weight", {24, 24});
      put(prefix + "mlp.gate_proj.weight", {20, 24});
      put(prefix + "mlp.up_proj.weight", {20, 24});
      put(prefix + "mlp.down_proj.weight", {24, 20});
    }
    model = std::make_unique<Model>(std::move(backend), c, tensors_, false);
    for (int a = 0; a < 2; a++) {
      AdapterSpec spec(*model);
      for (auto& layer : spec.layers)
        for (auto& group : layer)
          for (auto& module : group) module = {3 + a, 16};
      auto adapter = std::make_shared<Adapter>(*model, spec);
      // Only the pairs themselves: the padding of rows is to stay zero.
      for (int64_t l = 0; l < layers; l++)
        for (int g = 0; g < kGroups; g++)
          for (size_t m = 0; m < kModuleNames[size_t(g)].size(); m++)
            for (Tensor t : {adapter->a(l, g, int(m)), adapter->bt(l, g, int(m))}) {
              const Mat x = numbers_.matrix(t.rows, t.cols, 0.3);
              model->backend().write(t, x.v.data());
            }
      adapter->refresh();
      adapters.push_back(std::move(adapter));
    }
  }

  /// Token 0 opens a span of role 1, token 1 closes it.
  Generator::Options options() const {
    Generator::Options o;
    for (int v = 0; v < kVocabulary; v++) o.token_bytes.push_back({uint8_t(v == 0 ? '<' : v == 1 ? '>' : 'x')});
    o.router.spans.push_back({"<", ">", 1});
    o.adapter_of_role = {0, 1};
    return o;
  }

  std::unique_ptr<Model> model;
  AdapterList adapters;

 private:
  void put(const std::string& name, std::vector<int64_t> shape, float shift = 0) {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    values_.push_back(numbers_.matrix(1, n, shape.size() > 1 ? 0.5 : 0.3).v);
    for (float& x : values_.back()) x += shift;
    tensors_[name] = {values_.back().data(), DType::f32, std::move(shape)};
  }

  Numbers numbers_;
  std::vector<std::vector<float>> values_;
  std::map<std::string, StoredTensor> tensors_;
};

}  // namespace rolegrad::testing
