// Gradients, parameters and the optimizer's state of NativeTrainer, to and from JavaScript.

#include "bindings/trainer_arguments.h"
#include "bindings/trainer_object.h"

namespace rolegrad::bindings {

namespace {

std::vector<float> dense(Backend& b, const Tensor& t) {
  std::vector<float> values(size_t(t.rows * t.cols));
  b.read(values.data(), t);
  return values;
}

std::vector<float> to_float(std::span<const double> x) { return {x.begin(), x.end()}; }

std::vector<float> dense(Backend& b, const GradTensor& t) {
  std::vector<double> values(size_t(t.rows * t.cols));
  b.read(values.data(), t);
  return to_float(values);
}

}  // namespace

/// gradient(adapter, module, lossRole) -> { a, b } (lossRole -1: of the whole loss; else what was kept of a role's);
/// gradient(-1, parameter) -> { value } in full training.
Napi::Value TrainerObject::gradient(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    idle();
    Trainer& trainer = *state_->trainer;
    Backend& backend = state_->model->model->backend();
    auto out = Napi::Object::New(env);
    std::string name = string_argument(info[1], "name");
    if (trainer.full()) {
      out.Set("value",
              to_typed_array<float>(env, to_float(trainer.full()->read_gradient(trainer.full()->entry(name)))));
      return out;
    }
    auto index = int(integer_argument(info[0], "adapter", 0, int64_t(trainer.store()->adapters.size()) - 1));
    ModuleAddress at = module_address(*state_->model->model, name);
    if (trainer.store()->adapters[size_t(index)]->a(at.layer, at.group, at.module).rows == 0)
      throw Error("ERR_NO_MODULE", "Expected a module among the targets of adapter " +
                                       trainer.store()->names[size_t(index)] + " but received " + name);
    int role = int(integer_argument(info[2], "lossRole", -1, 127));
    const AdapterGradient* kept = role < 0 ? nullptr : trainer.kept(role, index);
    const AdapterGradient& gradient = kept ? *kept : trainer.slot(index).gradient;
    GradTensor ga = gradient.a(at.layer, at.group, at.module);
    GradTensor gb = gradient.bt(at.layer, at.group, at.module);
    std::vector<double> a(size_t(ga.rows * ga.cols)), bt(size_t(gb.rows * gb.cols)), b(bt.size());
    if (role < 0 || kept) {  // of a role that no batch had a token of, nothing is kept: zero
      backend.read(a.data(), ga);
      backend.read(bt.data(), gb);
    }
    for (int64_t j = 0; j < gb.rows; j++)
      for (int64_t n = 0; n < gb.cols; n++) b[size_t(n * gb.rows + j)] = bt[size_t(j * gb.cols + n)];
    out.Set("a", to_typed_array<float>(env, to_float(a)));
    out.Set("b", to_typed_array<float>(env, to_float(b)));
    return out;
  });
}

/// tokenGradient() -> of the rows of trained tokens, shaped as NativeAdapters.tokens(); null: none
Napi::Value TrainerObject::token_gradient(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    idle();
    TokenTraining* tokens = state_->trainer->tokens();
    if (!tokens) return info.Env().Null();
    return to_typed_array<float>(info.Env(), dense(state_->model->model->backend(), tokens->gradient()));
  });
}

/// routerGradient(layer, block) -> [experts, H]
Napi::Value TrainerObject::router_gradient(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    idle();
    if (!state_->adapters) throw Error("ERR_NO_MODULE", "Expected adapters of soft routing but received full training");
    const Model& model = *state_->model->model;
    auto [layer, block] = router_address(*state_->adapters->store, model, info);
    return to_typed_array<float>(info.Env(),
                                 dense(model.backend(), state_->trainer->slot(0).gradient.router(layer, block)));
  });
}

Napi::Value TrainerObject::norms(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    idle();
    return to_typed_array<double>(info.Env(), state_->trainer->gradient_norms());
  });
}

/// roleNorms(adapterOfRole) -> Float64Array [roles]
Napi::Value TrainerObject::role_norms(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    idle();
    return to_typed_array<double>(info.Env(),
                                  state_->trainer->role_norms(typed_array_argument<int32_t>(info[0], "adapterOfRole")));
  });
}

/// parameters() -> [{ name, shape }] of full training.
Napi::Value TrainerObject::parameters(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    open();
    auto list = Napi::Array::New(env);
    if (!state_->trainer->full()) return list;
    uint32_t i = 0;
    for (const auto& e : state_->trainer->full()->entries()) {
      auto item = Napi::Object::New(env);
      auto shape = Napi::Array::New(env);
      item.Set("name", e.name);
      bool matrix = e.decays;
      shape.Set(0u, double(matrix ? e.rows : e.cols));
      if (matrix) shape.Set(1u, double(e.cols));
      item.Set("shape", shape);
      list.Set(i++, item);
    }
    return list;
  });
}

Napi::Value TrainerObject::parameter(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    idle();
    if (!state_->trainer->full())
      throw Error("ERR_NO_PARAMETER", "Expected full training: the backbone is frozen here");
    auto& full = *state_->trainer->full();
    return to_typed_array<float>(
        env, dense(state_->model->model->backend(), full.value(full.entry(string_argument(info[0], "name")))));
  });
}

/// setParameters({ name: Float32Array }, updates): values of full training, all of them, and how many updates they have
/// seen; the model runs on them from then on.
Napi::Value TrainerObject::set_parameters(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    if (!state_->trainer->full())
      throw Error("ERR_NO_PARAMETER", "Expected full training: the backbone is frozen here");
    auto o = object_argument(info[0], "parameters");
    auto values = std::make_shared<std::vector<std::vector<float>>>();
    for (const auto& e : state_->trainer->full()->entries()) {
      values->push_back(copy_argument<float>(o.Get(e.name), e.name));
      check_length(values->back(), size_t(e.rows * e.cols), e.name.c_str());
    }
    auto updates = uint64_t(integer_argument(info[1], "updates", 0, int64_t(1) << 50));
    auto lease = std::make_shared<Lease<State>>(state_, true);
    return run_async(
        env,
        [values, updates, lease](const std::atomic<bool>&) mutable {
          auto held = std::move(lease);
          auto& full = *held->state->trainer->full();
          for (size_t i = 0; i < values->size(); i++)
            held->state->model->model->backend().write(full.value(full.entries()[i]), (*values)[i].data());
          full.publish(updates);
        },
        [](Napi::Env env) -> Napi::Value { return env.Undefined(); });
  });
}

/// state() -> { steps: number[], first: Float32Array[], second: Float32Array[] }: one entry per adapter (with moments
/// by role, one per role) and one for token rows where there are any, or one per parameter in full training.
Napi::Value TrainerObject::state(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    idle();
    Trainer& t = *state_->trainer;
    Backend& b = state_->model->model->backend();
    auto out = Napi::Object::New(env);
    auto steps = Napi::Array::New(env), first = Napi::Array::New(env), second = Napi::Array::New(env);
    uint32_t i = 0;
    if (t.full()) {
      for (const auto& e : t.full()->entries()) {
        steps.Set(i, double(t.full_steps));
        first.Set(i, to_typed_array<float>(env, dense(b, t.full()->first_moment(e))));
        second.Set(i++, to_typed_array<float>(env, dense(b, t.full()->second_moment(e))));
      }
    } else {
      for (size_t v = 0; v < t.store()->adapters.size(); v++) {
        auto& slot = t.slot(int(v));
        for (const auto& own : slot.moments) {
          steps.Set(i, double(slot.steps));
          first.Set(i, to_typed_array<float>(env, dense(b, t.moments(*own.first, int(v)))));
          second.Set(i++, to_typed_array<float>(env, dense(b, t.moments(*own.second, int(v)))));
        }
      }
      if (t.tokens()) {
        steps.Set(i, double(t.tokens()->steps));
        first.Set(i, to_typed_array<float>(env, dense(b, t.tokens()->first())));
        second.Set(i++, to_typed_array<float>(env, dense(b, t.tokens()->second())));
      }
    }
    out.Set("steps", steps);
    out.Set("first", first);
    out.Set("second", second);
    return out;
  });
}

/// restore(index, steps, first, second)
void TrainerObject::restore(const Napi::CallbackInfo& info) {
  guard(info.Env(), [&] {
    idle();
    Trainer& t = *state_->trainer;
    Backend& b = state_->model->model->backend();
    // Moments by role are those of one adapter.
    const size_t sets = t.full() ? 1 : t.slot(0).moments.size();
    size_t adapters = t.full() ? 0 : t.store()->adapters.size() * sets;
    size_t count = t.full() ? t.full()->entries().size() : adapters + (t.tokens() ? 1 : 0);
    auto index = size_t(integer_argument(info[0], "index", 0, int64_t(count) - 1));
    auto steps = uint64_t(integer_argument(info[1], "steps", 0, int64_t(1) << 50));
    auto first = copy_argument<float>(info[2], "first"), second = copy_argument<float>(info[3], "second");
    Tensor m, v;
    const int slot = int(index / sets);
    if (t.full()) {
      const auto& e = t.full()->entries()[index];
      m = t.full()->first_moment(e), v = t.full()->second_moment(e);
    } else if (index == adapters) {
      m = t.tokens()->first(), v = t.tokens()->second();
    } else {
      const auto& own = t.slot(slot).moments[index % sets];
      m = t.moments(*own.first, slot), v = t.moments(*own.second, slot);
    }
    check_length(first, size_t(m.rows * m.cols), "first");
    check_length(second, size_t(v.rows * v.cols), "second");
    b.write(m, first.data());
    b.write(v, second.data());
    (t.full() ? t.full_steps : index == adapters ? t.tokens()->steps : t.slot(slot).steps) = steps;
  });
}

}  // namespace rolegrad::bindings
