// The class NativeAdapters: the pairs of every adapter, read and written by module.

#include <cmath>

#include "bindings/engine.h"

namespace rolegrad::bindings {

ModuleAddress module_address(const Model& model, const std::string& name) {
  const std::string prefix = "model.layers.";
  if (name.rfind(prefix, 0) == 0) {
    size_t dot = name.find('.', prefix.size());
    std::string number = name.substr(prefix.size(), dot == std::string::npos ? 0 : dot - prefix.size());
    if (!number.empty() && number.size() < 6 && number.find_first_not_of("0123456789") == std::string::npos) {
      int64_t layer = std::stol(number);
      std::string rest = name.substr(dot + 1);
      for (int g = 0; g < kGroups; g++)
        for (size_t m = 0; m < kModuleNames[size_t(g)].size(); m++)
          if (layer < model.config().layers && kModuleNames[size_t(g)][m] == rest) return {layer, g, int(m)};
    }
  }
  throw Error("ERR_NO_MODULE", "Expected a module such as model.layers.0.self_attn.q_proj (layers 0 to " +
                                   std::to_string(model.config().layers - 1) + ") but received " + name);
}

/// new NativeAdapters(model, [{ name, rsLora, dropout, experts, modules: [{ module, rank, alpha }] }], tokens:
/// Int32Array | null, mean): the modules that carry a pair; the rows of `tokens` begin as the mean of the first `mean`
/// ones; 0: as they are
AdaptersObject::AdaptersObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<AdaptersObject>(info) {
  guard(info.Env(), [&] {
    info.This().As<Napi::Object>().TypeTag(&kTag);
    adapters_ = std::make_shared<SharedAdapters>();
    adapters_->model = ModelObject::of(info[0]);
    auto list = array_argument(info[1], "adapters");
    for (uint32_t i = 0; i < list.Length(); i++) {
      auto o = object_argument(list.Get(i), "adapters");
      AdapterSpec spec(*adapters_->model->model);
      spec.rs_lora = boolean_argument(o.Get("rsLora"), "rsLora");
      spec.dropout = number_argument(o.Get("dropout"), "dropout");
      spec.experts = int(integer_argument(o.Get("experts"), "experts", 0, 256));
      if (!(spec.dropout >= 0 && spec.dropout < 1))
        throw Error("ERR_INVALID_ARGUMENT", "Expected dropout in [0, 1) but received " + std::to_string(spec.dropout));
      auto modules = array_argument(o.Get("modules"), "modules");
      AdapterSpec::Module first;
      for (uint32_t m = 0; m < modules.Length(); m++) {
        auto module = object_argument(modules.Get(m), "modules");
        ModuleAddress at = module_address(*adapters_->model->model, string_argument(module.Get("module"), "module"));
        AdapterSpec::Module own{int(integer_argument(module.Get("rank"), "rank", 1, 4096)),
                                number_argument(module.Get("alpha"), "alpha")};
        if (m == 0) first = own;
        if (spec.experts > 0 && (own.rank % spec.experts != 0 || own.rank != first.rank || own.alpha != first.alpha))
          throw Error("ERR_INVALID_ARGUMENT",
                      "Expected one rank, which the experts share, and one alpha for soft routing");
        spec.layers[size_t(at.layer)][size_t(at.group)][size_t(at.module)] = own;
      }
      if (spec.experts > 0 && list.Length() != 1)
        throw Error("ERR_INVALID_ARGUMENT", "Expected one adapter for soft routing, which all experts are part of");
      adapters_->store->names.push_back(string_argument(o.Get("name"), "name"));
      adapters_->store->adapters.push_back(std::make_shared<Adapter>(*adapters_->model->model, spec));
    }
    auto tokens = optional_copy<int32_t>(info[2], "tokens");
    const Model& model = *adapters_->model->model;
    int64_t mean = integer_argument(info[3], "mean", 0, model.config().vocab_size);
    if (!tokens.empty()) adapters_->store->tokens = std::make_shared<TokenRows>(model, tokens);
    if (!tokens.empty() && mean > 0) adapters_->store->tokens->initialise_to_mean(mean);
    adapters_->model->add(adapters_);
  });
}

const std::shared_ptr<SharedAdapters>& AdaptersObject::of(const Napi::Value& value) {
  const Napi::Object object = object_argument(value, "adapters");
  if (!object.CheckTypeTag(&kTag)) expected("adapters", "adapters", value);
  return Unwrap(object)->adapters_;
}

namespace {

void refuse_while(const std::atomic<int>& jobs) {
  if (jobs.load() > 0)
    throw Error("ERR_BUSY", "Expected no training step to be running while adapters are used: await it first");
}

/// ERR_NO_MODULE unless the module carries a pair.
void check_pair(const AdapterStore& store, size_t index, const ModuleAddress& at, const std::string& name) {
  if (store.adapters[index]->a(at.layer, at.group, at.module).rows == 0)
    throw Error("ERR_NO_MODULE",
                "Expected a module among the targets of adapter " + store.names[index] + " but received " + name);
}

std::vector<float> read_dense(Backend& b, const Tensor& t) {
  std::vector<float> values(size_t(t.rows * t.cols));
  b.read(values.data(), t);
  return values;
}

}  // namespace

void AdaptersObject::idle() const {
  adapters_->model->check_open();
  refuse_while(adapters_->users);
}

AdapterList AdaptersObject::list_for(const std::shared_ptr<LoadedModel>& model, const Napi::Value& value) {
  if (value.IsNull() || value.IsUndefined()) return {};
  const auto& adapters = of(value);
  if (adapters->model != model)
    throw Error("ERR_INVALID_ARGUMENT", "Expected adapters of this model but received another model's");
  refuse_while(adapters->writers);
  return adapters->store->list();
}

/// get(adapter, module) -> { a [r, K], b [N, r] }
Napi::Value AdaptersObject::get(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    idle();
    const Model& model = *adapters_->model->model;
    auto index = size_t(integer_argument(info[0], "adapter", 0, int64_t(adapters_->store->adapters.size()) - 1));
    std::string name = string_argument(info[1], "module");
    ModuleAddress at = module_address(model, name);
    check_pair(*adapters_->store, index, at, name);
    const Adapter& adapter = *adapters_->store->adapters[index];
    auto a = read_dense(model.backend(), adapter.a(at.layer, at.group, at.module));
    Tensor bt = adapter.bt(at.layer, at.group, at.module);
    auto transposed = read_dense(model.backend(), bt);
    std::vector<float> b(transposed.size());
    for (int64_t j = 0; j < bt.rows; j++)
      for (int64_t n = 0; n < bt.cols; n++) b[size_t(n * bt.rows + j)] = transposed[size_t(j * bt.cols + n)];
    auto out = Napi::Object::New(env);
    out.Set("a", to_typed_array<float>(env, a));
    out.Set("b", to_typed_array<float>(env, b));
    return out;
  });
}

/// set(adapter, module, a, b)
void AdaptersObject::set(const Napi::CallbackInfo& info) {
  guard(info.Env(), [&] {
    idle();
    const Model& model = *adapters_->model->model;
    auto index = size_t(integer_argument(info[0], "adapter", 0, int64_t(adapters_->store->adapters.size()) - 1));
    std::string name = string_argument(info[1], "module");
    ModuleAddress at = module_address(model, name);
    auto a = typed_array_argument<float>(info[2], "a");
    auto b = typed_array_argument<float>(info[3], "b");
    auto& slot = adapters_->store->adapters[index];
    check_pair(*adapters_->store, index, at, name);
    Tensor ta = slot->a(at.layer, at.group, at.module), tb = slot->bt(at.layer, at.group, at.module);
    if (int64_t(a.size()) != ta.rows * ta.cols || int64_t(b.size()) != tb.rows * tb.cols)
      throw Error("ERR_SHAPE", "Expected a [" + std::to_string(ta.rows) + ", " + std::to_string(ta.cols) + "] and b [" +
                                   std::to_string(tb.cols) + ", " + std::to_string(tb.rows) + "] for " + name +
                                   " but received " + std::to_string(a.size()) + " and " + std::to_string(b.size()) +
                                   " values");
    for (auto values : {a, b})
      for (float x : values)
        if (!std::isfinite(x))
          throw Error("ERR_NOT_FINITE", "Expected finite values for " + name + " but received " + std::to_string(x));
    if (slot.use_count() > 1) {
      slot = std::make_shared<Adapter>(*slot);
      ta = slot->a(at.layer, at.group, at.module), tb = slot->bt(at.layer, at.group, at.module);
    }
    std::vector<float> transposed(b.size());
    for (int64_t j = 0; j < tb.rows; j++)
      for (int64_t n = 0; n < tb.cols; n++) transposed[size_t(j * tb.cols + n)] = b[size_t(n * tb.rows + j)];
    model.backend().write(ta, a.data());
    model.backend().write(tb, transposed.data());
    model.backend().refresh_lora(slot->group(at.layer, at.group));
  });
}

/// norm(adapter): the Euclidean norm of scale * B A's factors, sqrt(|A|^2 + |B|^2)
Napi::Value AdaptersObject::norm(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    idle();
    auto index = size_t(integer_argument(info[0], "adapter", 0, int64_t(adapters_->store->adapters.size()) - 1));
    auto values = read_dense(adapters_->model->model->backend(), adapters_->store->adapters[index]->flat());
    double sum = 0;
    for (float x : values) sum += double(x) * double(x);
    return Napi::Number::New(info.Env(), std::sqrt(sum));
  });
}

/// tokens() -> the rows of trained tokens, [n, H] or with a head of its own [2 n, H], embedding first; null: none
Napi::Value AdaptersObject::tokens(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    idle();
    const auto& rows = adapters_->store->tokens;
    if (!rows) return info.Env().Null();
    return to_typed_array<float>(info.Env(), read_dense(adapters_->model->model->backend(), rows->flat()));
  });
}

/// setTokens(rows), as tokens() gives them
void AdaptersObject::set_tokens(const Napi::CallbackInfo& info) {
  guard(info.Env(), [&] {
    idle();
    auto& rows = adapters_->store->tokens;
    auto values = typed_array_argument<float>(info[0], "rows");
    if (!rows || int64_t(values.size()) != rows->flat().rows * rows->flat().cols)
      throw Error("ERR_SHAPE",
                  "Expected the rows of every trained token but received " + std::to_string(values.size()) + " values");
    for (float x : values)
      if (!std::isfinite(x))
        throw Error("ERR_NOT_FINITE", "Expected finite token rows but received " + std::to_string(x));
    if (rows.use_count() > 1) rows = std::make_shared<TokenRows>(*rows);
    adapters_->model->model->backend().write(rows->flat(), values.data());
    rows->refresh();
  });
}

std::pair<int64_t, int> router_address(const AdapterStore& store, const Model& model, const Napi::CallbackInfo& info) {
  if (store.adapters.empty() || store.adapters[0]->spec().experts == 0)
    throw Error("ERR_NO_MODULE", "Expected adapters of soft routing: these have no routers");
  return {integer_argument(info[0], "layer", 0, model.config().layers - 1),
          int(integer_argument(info[1], "block", 0, kBlocks - 1))};
}

/// router(layer, block) -> [experts, H]
Napi::Value AdaptersObject::router(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    idle();
    const Model& model = *adapters_->model->model;
    auto [layer, block] = router_address(*adapters_->store, model, info);
    return to_typed_array<float>(info.Env(),
                                 read_dense(model.backend(), adapters_->store->adapters[0]->router(layer, block).a));
  });
}

/// setRouter(layer, block, weight)
void AdaptersObject::set_router(const Napi::CallbackInfo& info) {
  guard(info.Env(), [&] {
    idle();
    const Model& model = *adapters_->model->model;
    auto [layer, block] = router_address(*adapters_->store, model, info);
    auto values = typed_array_argument<float>(info[2], "weight");
    auto& slot = adapters_->store->adapters[0];
    Tensor weight = slot->router(layer, block).a;
    if (int64_t(values.size()) != weight.rows * weight.cols)
      throw Error("ERR_SHAPE", "Expected a router [" + std::to_string(weight.rows) + ", " +
                                   std::to_string(weight.cols) + "] but received " + std::to_string(values.size()) +
                                   " values");
    for (float x : values)
      if (!std::isfinite(x))
        throw Error("ERR_NOT_FINITE", "Expected a finite router but received " + std::to_string(x));
    if (slot.use_count() > 1) slot = std::make_shared<Adapter>(*slot);
    const LoraGroup& router = slot->router(layer, block);
    model.backend().write(router.a, values.data());
    model.backend().refresh_lora(router);
  });
}

Napi::Function AdaptersObject::define(Napi::Env env) {
  return DefineClass(
      env, kName,
      {InstanceMethod("get", &AdaptersObject::get), InstanceMethod("set", &AdaptersObject::set),
       InstanceMethod("norm", &AdaptersObject::norm), InstanceMethod("tokens", &AdaptersObject::tokens),
       InstanceMethod("setTokens", &AdaptersObject::set_tokens), InstanceMethod("router", &AdaptersObject::router),
       InstanceMethod("setRouter", &AdaptersObject::set_router)});
}

void register_adapters(Napi::Env env, Napi::Object exports) {
  auto function = AdaptersObject::define(env);
  constructor(env, AdaptersObject::kName) = Napi::Persistent(function);
  exports.Set("Adapters", function);
}

}  // namespace rolegrad::bindings
