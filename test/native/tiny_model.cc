#include "tiny_model.h"

#include "core/random.h"

namespace rolegrad::testing {

TinyModel::TinyModel(const std::string& device) {
  config.vocab_size = 50;
  config.hidden_size = 16;
  config.layers = 2;
  config.heads = 2;
  config.kv_heads = 1;
  config.head_dim = 8;
  config.intermediate_size = 24;
  uint64_t stream = 0;
  auto add = [&](const std::string& name, std::vector<int64_t> shape, double around = 0) {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    auto& own = values[name];
    stream++;
    for (int64_t i = 0; i < n; i++) own.push_back(float(around + 0.6 * (uniform({11, stream}, uint64_t(i)) - 0.5)));
    tensors[name] = {own.data(), DType::f32, std::move(shape)};
  };
  const auto& c = config;
  add("model.embed_tokens.weight", {c.vocab_size, c.hidden_size});
  add("lm_head.weight", {c.vocab_size, c.hidden_size});
  add("model.norm.weight", {c.hidden_size}, 1);
  for (int64_t l = 0; l < c.layers; l++) {
    const std::string prefix = "model.layers." + std::to_string(l) + ".";
    add(prefix + "input_layernorm.weight", {c.hidden_size}, 1);
    add(prefix + "post_attention_layernorm.weight", {c.hidden_size}, 1);
    const int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
    for (const auto& [name, rows] : {std::pair{"q", q}, {"k", kv}, {"v", kv}}) {
      add(prefix + "self_attn." + name + "_proj.weight", {rows, c.hidden_size});
      add(prefix + "self_attn." + name + "_proj.bias", {rows});
    }
    add(prefix + "self_attn.o_proj.weight", {c.hidden_size, q});
    add(prefix + "mlp.gate_proj.weight", {c.intermediate_size, c.hidden_size});
    add(prefix + "mlp.up_proj.weight", {c.intermediate_size, c.hidden_size});
    add(prefix + "mlp.down_proj.weight", {c.hidden_size, c.intermediate_size});
  }
  model = load(device);
}

std::unique_ptr<Model> TinyModel::load(const std::string& device) const {
  auto backend = device == "cpu" ? make_cpu_backend() : make_reference_backend();
  return std::make_unique<Model>(std::move(backend), config, tensors, true);
}

std::shared_ptr<AdapterStore> TinyModel::adapters(bool tokens) const {
  auto store = std::make_shared<AdapterStore>();
  for (const char* name : {"reason", "tool"}) {
    AdapterSpec spec(*model);
    for (auto& layer : spec.layers)
      for (auto& group : layer)
        for (auto& module : group) module = {3, 16};
    auto adapter = std::make_shared<Adapter>(*model, spec);
    uint64_t position = 0;
    for (int64_t l = 0; l < config.layers; l++)
      for (int g = 0; g < kGroups; g++) {
        const LoraGroup& group = adapter->group(l, g);
        auto fill = [&](const Tensor& t) {
          std::vector<float> random(size_t(t.rows * t.cols));
          for (auto& x : random) x = float(0.4 * (uniform({5, uint64_t(name[0])}, position++) - 0.5));
          model->backend().write(t, random.data());
        };
        fill(group.a);
        for (const auto& bt : group.bt) fill(bt);
      }
    adapter->refresh();
    store->names.push_back(name);
    store->adapters.push_back(std::move(adapter));
  }
  if (tokens) store->tokens = std::make_shared<TokenRows>(*model, std::vector<int32_t>{1, 3, 6});
  return store;
}

TinyBatch::TinyBatch(const ModelConfig& config, uint64_t seed) {
  for (int32_t t = 0; t < cu.back(); t++) {
    auto draw = [&](uint64_t purpose) { return uniform({seed, purpose}, uint64_t(t)); };
    ids.push_back(int32_t(draw(1) * double(config.vocab_size)));
    roles.push_back(int8_t(draw(2) * 2));
    weight.push_back(draw(3) < 0.7 ? 0.1 : 0);
    advantage.push_back(draw(4) - 0.5);
    old.push_back(float(-3 - draw(5)));
  }
}

}  // namespace rolegrad::testing
