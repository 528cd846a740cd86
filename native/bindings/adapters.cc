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

/// new NativeAdapters(model, [{ name, rank, alpha, rsLora, targets: string[] }])
AdaptersObject::AdaptersObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<AdaptersObject>(info) {
  guard(info.Env(), [&] {
    info.This().As<Napi::Object>().TypeTag(&kTag);
    adapters_ = std::make_shared<SharedAdapters>();
    adapters_->model = ModelObject::of(info[0]);
    auto list = array_argument(info[1], "adapters");
    for (uint32_t i = 0; i < list.Length(); i++) {
      auto o = object_argument(list.Get(i), "adapters");
      AdapterSpec spec;
      spec.rank = int(integer_argument(o.Get("rank"), "rank", 1, 4096));
      spec.alpha = number_argument(o.Get("alpha"), "alpha");
      spec.rs_lora = boolean_argument(o.Get("rsLora"), "rsLora");
      auto targets = array_argument(o.Get("targets"), "targets");
      for (auto& group : spec.targets) group.assign(group.size(), false);
      for (uint32_t t = 0; t < targets.Length(); t++) {
        std::string wanted = string_argument(targets.Get(t), "targets");
        bool found = false;
        for (int g = 0; g < kGroups; g++)
          for (size_t m = 0; m < kModuleNames[size_t(g)].size(); m++) {
            const std::string& name = kModuleNames[size_t(g)][m];
            if (name.substr(name.find('.') + 1) == wanted) spec.targets[size_t(g)][m] = found = true;
          }
        if (!found)
          throw Error(
              "ERR_NO_MODULE",
              "Expected targets among q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj but received " +
                  wanted);
      }
      adapters_->store->names.push_back(string_argument(o.Get("name"), "name"));
      adapters_->store->adapters.push_back(std::make_shared<Adapter>(*adapters_->model->model, spec));
    }
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
    ModuleAddress at = module_address(model, string_argument(info[1], "module"));
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
    if (!slot->spec().targets[size_t(at.group)][size_t(at.module)])
      throw Error("ERR_NO_MODULE", "Expected a module among the targets of adapter " + adapters_->store->names[index] +
                                       " but received " + name);
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

Napi::Function AdaptersObject::define(Napi::Env env) {
  return DefineClass(env, kName,
                     {InstanceMethod("get", &AdaptersObject::get), InstanceMethod("set", &AdaptersObject::set),
                      InstanceMethod("norm", &AdaptersObject::norm)});
}

void register_adapters(Napi::Env env, Napi::Object exports) {
  auto function = AdaptersObject::define(env);
  constructor(env, AdaptersObject::kName) = Napi::Persistent(function);
  exports.Set("Adapters", function);
}

}  // namespace rolegrad::bindings
