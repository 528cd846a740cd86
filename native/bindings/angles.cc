// The class NativeAngles: inner products of the gradients of many losses, layer by layer.

#include "train/angles.h"

#include "bindings/trainer_arguments.h"

namespace rolegrad::bindings {

namespace {

struct AnglesState : Dependent {
  void release() override { end(); }
  void end() {
    measure.reset();
    weights.reset();
  }
  std::shared_ptr<LoadedModel> model;
  std::unique_ptr<AngleMeasure> measure;
  std::unique_ptr<WeightsHold> weights;
  AngleMeasure::Use use;
  std::atomic<bool> running{false}, closed{false};
  std::atomic<bool> broken{false};  // a step failed, or was aborted, half-way
};

class AnglesObject : public Napi::ObjectWrap<AnglesObject> {
 public:
  explicit AnglesObject(const Napi::CallbackInfo& info);
  static Napi::Function define(Napi::Env env);

 private:
  Napi::Value forward(const Napi::CallbackInfo& info);
  Napi::Value layer(const Napi::CallbackInfo& info);
  Napi::Value memory(const Napi::CallbackInfo& info);
  void close(const Napi::CallbackInfo& info);
  Napi::Value run(Napi::Env env, std::function<void(AngleMeasure&)> work,
                  std::function<Napi::Value(Napi::Env)> complete);
  std::shared_ptr<AnglesState> state_;
};

AngleQuery query_argument(const Model& model, const Napi::Value& value, const AngleOptions& options, size_t adapters) {
  auto o = object_argument(value, "queries");
  auto packed = packed_argument(model, o);
  AngleQuery q;
  q.ids = std::move(packed.ids), q.cu_seqlens = std::move(packed.cu);
  q.roles = std::move(packed.roles), q.adapter_of_role = std::move(packed.table);
  q.weights = copy_argument<float>(o.Get("weights"), "weights");
  q.sums = copy_argument<double>(o.Get("sums"), "sums");
  check_length(q.weights, size_t(options.passes) * q.ids.size(), "weights");
  check_length(q.sums, size_t(options.sums * options.passes) * (q.cu_seqlens.size() - 1), "sums");
  for (int32_t a : q.adapter_of_role)
    if (a < -1 || a >= int32_t(adapters)) throw Error("ERR_ROLE_RANGE", "Expected routes to adapters that exist");
  return q;
}

/// new NativeAngles(model, adapters | null, queries, { adapters, vectors, tables, stop, passes, sums, temperature })
AnglesObject::AnglesObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<AnglesObject>(info) {
  guard(info.Env(), [&] {
    state_ = std::make_shared<AnglesState>();
    state_->model = ModelObject::of(info[0]);
    state_->model->check_open();
    const Model& model = *state_->model->model;
    AdapterList adapters = AdaptersObject::list_for(state_->model, info[1]);
    auto o = object_argument(info[3], "options");
    AngleOptions options;
    options.adapters = boolean_argument(o.Get("adapters"), "adapters");
    options.vectors = boolean_argument(o.Get("vectors"), "vectors");
    options.tables = boolean_argument(o.Get("tables"), "tables");
    options.stop = boolean_argument(o.Get("stop"), "stop");
    options.passes = int(integer_argument(o.Get("passes"), "passes", 1, 1 << 12));
    options.sums = int(integer_argument(o.Get("sums"), "sums", 0, 1 << 12));
    options.temperature = float(number_argument(o.Get("temperature"), "temperature"));
    auto list = array_argument(info[2], "queries");
    std::vector<AngleQuery> queries;
    for (uint32_t i = 0; i < list.Length(); i++)
      queries.push_back(query_argument(model, list.Get(i), options, adapters.size()));
    state_->weights = std::make_unique<WeightsHold>(state_->model, WeightsHold::Kind::rollout);
    state_->measure = std::make_unique<AngleMeasure>(model, std::move(adapters), std::move(queries), options);
    state_->model->add(state_);
  });
}

Napi::Value AnglesObject::run(Napi::Env env, std::function<void(AngleMeasure&)> work,
                              std::function<Napi::Value(Napi::Env)> complete) {
  return guard(env, [&]() -> Napi::Value {
    state_->model->check_open();
    if (state_->running) throw Error("ERR_BUSY", "Expected no other call of this measurement to be running");
    if (state_->closed) throw Error("ERR_CLOSED", "Expected an open measurement but it was closed");
    if (state_->broken)
      throw Error("ERR_MEASUREMENT_BROKEN", "Expected a measurement whose last call ended well: begin another one");
    auto held = lease(state_->model);
    auto state = state_;
    state->running = true;
    std::shared_ptr<void> running(nullptr, [state](void*) {
      state->running = false;
      if (state->closed) state->end();
    });
    return run_async(
        env,
        [state, work = std::move(work), held = std::move(held),
         running = std::move(running)](const std::atomic<bool>&) mutable {
          auto until = std::move(running);
          auto used = std::move(held);
          try {
            work(*state->measure);
            state->use = state->measure->use();
          } catch (...) {
            state->broken = true;
            throw;
          }
        },
        std::move(complete), "inner products of gradients");
  });
}

Napi::Value AnglesObject::forward(const Napi::CallbackInfo& info) {
  return run(
      info.Env(), [](AngleMeasure& measure) { measure.forward(); },
      [](Napi::Env env) -> Napi::Value { return env.Undefined(); });
}

/// layer() -> [{ name, adapter, within: Float64Array[], across: Float64Array }]
Napi::Value AnglesObject::layer(const Napi::CallbackInfo& info) {
  auto grams = std::make_shared<std::vector<ModuleGram>>();
  return run(
      info.Env(), [grams](AngleMeasure& measure) { *grams = measure.layer(); },
      [grams](Napi::Env env) -> Napi::Value {
        auto list = Napi::Array::New(env);
        uint32_t i = 0;
        for (const auto& gram : *grams) {
          auto item = Napi::Object::New(env);
          auto within = Napi::Array::New(env);
          uint32_t q = 0;
          for (const auto& own : gram.within) within.Set(q++, to_typed_array<double>(env, own));
          item.Set("name", gram.name);
          item.Set("adapter", gram.adapter);
          item.Set("within", within);
          item.Set("across", to_typed_array<double>(env, gram.across));
          list.Set(i++, item);
        }
        return list;
      });
}

/// memory() -> { activations, keys, gradients, sums }: the most bytes at once so far.
Napi::Value AnglesObject::memory(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    auto out = Napi::Object::New(info.Env());
    out.Set("activations", double(state_->use.activations));
    out.Set("keys", double(state_->use.keys));
    out.Set("gradients", double(state_->use.gradients));
    out.Set("sums", double(state_->use.sums));
    return out;
  });
}

/// Gives the memory back, at the end of a call that is under way.
void AnglesObject::close(const Napi::CallbackInfo&) {
  state_->closed = true;
  if (!state_->running) state_->end();
}

Napi::Function AnglesObject::define(Napi::Env env) {
  return DefineClass(env, "NativeAngles",
                     {InstanceMethod("forward", &AnglesObject::forward), InstanceMethod("layer", &AnglesObject::layer),
                      InstanceMethod("memory", &AnglesObject::memory), InstanceMethod("close", &AnglesObject::close)});
}

}  // namespace

void register_angles(Napi::Env env, Napi::Object exports) {
  auto function = AnglesObject::define(env);
  constructor(env, "NativeAngles") = Napi::Persistent(function);
  exports.Set("Angles", function);
}

}  // namespace rolegrad::bindings
