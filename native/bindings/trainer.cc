// The class NativeTrainer: gradient buffers and optimizer steps. What it holds is read and set in trainer_values.cc.

#include "bindings/trainer_arguments.h"
#include "bindings/trainer_object.h"

namespace rolegrad::bindings {

/// new NativeTrainer(model, adapters | null, reference | null, trackLossRoles, gradientCheckpointing, momentRoles):
/// without adapters, full training.
TrainerObject::TrainerObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<TrainerObject>(info) {
  guard(info.Env(), [&] {
    state_ = std::make_shared<State>();
    state_->model = ModelObject::of(info[0]);
    Model& model = *state_->model->model;
    if (!info[2].IsNull() && !info[2].IsUndefined()) state_->reference = ModelObject::of(info[2]);
    const Model* reference = state_->reference ? state_->reference->model.get() : nullptr;
    if (state_->reference == state_->model)
      throw Error("ERR_REFERENCE", "Expected another model than the one that is trained as its reference");
    if (reference && reference->config().vocab_size != model.config().vocab_size)
      throw Error("ERR_REFERENCE", "Expected a reference with the vocabulary of the trained model (" +
                                       std::to_string(model.config().vocab_size) + " tokens) but it has " +
                                       std::to_string(reference->config().vocab_size));
    const TrainerOptions options{
        .track = boolean_argument(info[3], "trackLossRoles"),
        .checkpointing = boolean_argument(info[4], "gradientCheckpointing"),
        .moment_roles = info[5].IsUndefined() ? 0 : int(integer_argument(info[5], "momentRoles", 0, 127))};
    if (!info[1].IsNull() && !info[1].IsUndefined()) {
      state_->adapters = AdaptersObject::of(info[1]);
      if (state_->adapters->model != state_->model)
        throw Error("ERR_INVALID_ARGUMENT", "Expected adapters of this model but received another model's");
      if (options.moment_roles > 0 && state_->adapters->store->adapters.size() != 1)
        throw Error("ERR_INVALID_ARGUMENT", "Expected one adapter for moments by role");
      state_->trainer = std::make_unique<Trainer>(model, state_->adapters->store, reference, options);
    } else {
      if (model.embedding().dtype() != DType::f32)
        throw Error("ERR_DTYPE",
                    "Expected a model loaded with dtype \"float32\" for full training but received bfloat16 weights");
      state_->trainer = std::make_unique<Trainer>(
          model, std::make_unique<FullParameters>(model, state_->model->tensors, state_->model->masters), reference,
          options);
    }
    state_->model->add(state_);
  });
}

void TrainerObject::open() const { state_->model->check_open(); }

void TrainerObject::idle() const {
  open();
  if (state_->running.load() > 0)
    throw Error("ERR_BUSY", "Expected no step of this trainer to be running: await it first");
}

/// accumulate(batch) -> { loss, kl, clipHigh, clipLow, dualClip, importanceBounded, importance, logprobs,
/// perTokenLoss, entropies }
Napi::Value TrainerObject::accumulate(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    open();
    struct Job {
      BatchArguments batch;
      LossOptions options;
      LossResult result;
    };
    auto o = object_argument(info[0], "batch");
    auto job = std::make_shared<Job>(Job{batch_argument(*state_->model->model, o), loss_argument(o), {}});
    job->options.discard = boolean_argument(o.Get("discard"), "discard");
    const size_t rows = o.Get("inputIds").As<Napi::TypedArray>().ElementLength();
    auto lease = std::make_shared<Lease<State>>(state_, false);
    return run_async(
        env,
        [job, lease](const std::atomic<bool>&) mutable {
          auto held = std::move(lease);
          job->result = held->state->trainer->accumulate(job->batch.view(), job->options);
        },
        [job](Napi::Env env) -> Napi::Value {
          auto out = Napi::Object::New(env);
          const auto& r = job->result;
          out.Set("loss", r.sums.loss);
          out.Set("kl", r.sums.kl);
          out.Set("clipHigh", r.sums.clip_high);
          out.Set("clipLow", r.sums.clip_low);
          out.Set("dualClip", r.sums.dual_clip);
          out.Set("importanceBounded", r.sums.importance_bounded);
          out.Set("importance", r.sums.importance);
          out.Set("logprobs", to_typed_array<float>(env, r.logprob));
          out.Set("entropies", to_typed_array<float>(env, r.entropy));
          out.Set("perTokenLoss", to_typed_array<float>(env, r.per_token));
          return out;
        },
        "the gradient of a batch of " + std::to_string(rows) + " tokens");
  });
}

/// leak(batches) -> { norm, ownDot [roles, adapters], own [adapters], tokens [roles] }: the batches together are one.
Napi::Value TrainerObject::leak(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    open();
    struct Job {
      std::vector<BatchArguments> batches;
      LossOptions options;
      LeakResult result;
    };
    auto job = std::make_shared<Job>();
    auto list = info[0].As<Napi::Array>();
    for (uint32_t i = 0; i < list.Length(); i++) {
      auto o = object_argument(list.Get(i), "batches");
      job->batches.push_back(batch_argument(*state_->model->model, o));
      job->options = loss_argument(o);
    }
    if (job->batches.empty() || state_->trainer->full())
      throw Error("ERR_INVALID_ARGUMENT", "Expected a batch for a trainer of adapters");
    auto lease = std::make_shared<Lease<State>>(state_, false);
    return run_async(
        env,
        [job, lease](const std::atomic<bool>&) mutable {
          auto held = std::move(lease);
          std::vector<LossBatch> views;
          for (const auto& batch : job->batches) views.push_back(batch.view());
          job->result = held->state->trainer->leak(views, job->options);
        },
        [job](Napi::Env env) -> Napi::Value {
          auto out = Napi::Object::New(env);
          const auto& r = job->result;
          std::vector<int32_t> tokens(r.tokens.begin(), r.tokens.end());
          out.Set("norm", to_typed_array<double>(env, r.norm));
          out.Set("ownDot", to_typed_array<double>(env, r.own_dot));
          out.Set("own", to_typed_array<double>(env, r.own));
          out.Set("tokens", to_typed_array<int32_t>(env, tokens));
          return out;
        });
  });
}

/// holdWeights(): in full training no rollout on the model begins until releaseWeights(). ERR_BUSY while one is under
/// way.
void TrainerObject::hold_weights(const Napi::CallbackInfo& info) {
  guard(info.Env(), [&] {
    open();
    if (state_->trainer->full() && !state_->update)
      state_->update = std::make_unique<WeightsHold>(state_->model, WeightsHold::Kind::update);
  });
}

void TrainerObject::release_weights(const Napi::CallbackInfo&) { state_->update.reset(); }

/// apply({ learningRate, beta1, beta2, epsilon, weightDecay, maxGradNorm, decayVectors, limits: Float64Array | null })
/// -> { taken, gradientNorms, updateNorms, norms, roleGradientNorms, roleUpdateNorms }, one per adapter, then that of
/// token rows where there are any (or one). Not taken: a gradient's norm is not finite, or above its limit.
Napi::Value TrainerObject::apply(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    auto o = object_argument(info[0], "step");
    AdamWStep step = adamw_argument(o);
    bool decay_vectors = boolean_argument(o.Get("decayVectors"), "decayVectors");
    auto limits = optional_copy<double>(o.Get("limits"), "limits");
    auto result = std::make_shared<StepResult>();
    auto held = std::make_shared<Lease<State>>(state_, true);
    return run_async(
        env, [=](const std::atomic<bool>&) { *result = held->state->trainer->apply(step, decay_vectors, limits); },
        [result](Napi::Env env) -> Napi::Value {
          auto out = Napi::Object::New(env);
          out.Set("taken", result->taken);
          out.Set("gradientNorms", to_typed_array<double>(env, result->gradient_norm));
          out.Set("updateNorms", to_typed_array<double>(env, result->update_norm));
          out.Set("norms", to_typed_array<double>(env, result->norm));
          out.Set("roleGradientNorms", to_typed_array<double>(env, result->role_gradient_norm));
          out.Set("roleUpdateNorms", to_typed_array<double>(env, result->role_update_norm));
          return out;
        },
        "an optimizer step");
  });
}

void TrainerObject::zero(const Napi::CallbackInfo& info) {
  guard(info.Env(), [&] {
    idle();
    state_->trainer->zero_gradients();
  });
}

/// memory() -> { arenaBytes, arenaPeakBytes, kvBytes, arenaAllocations }
Napi::Value TrainerObject::memory(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    idle();
    auto out = Napi::Object::New(info.Env());
    out.Set("arenaBytes", double(state_->trainer->arena().bytes()));
    out.Set("arenaPeakBytes", double(state_->trainer->arena().peak_bytes()));
    out.Set("kvBytes", double(state_->trainer->arena().kv_bytes()));
    out.Set("arenaAllocations", double(state_->trainer->arena().allocations()));
    return out;
  });
}

Napi::Function TrainerObject::define(Napi::Env env) {
  return DefineClass(
      env, kName,
      {InstanceMethod("tokenGradient", &TrainerObject::token_gradient),
       InstanceMethod("routerGradient", &TrainerObject::router_gradient),
       InstanceMethod("accumulate", &TrainerObject::accumulate), InstanceMethod("leak", &TrainerObject::leak),
       InstanceMethod("holdWeights", &TrainerObject::hold_weights),
       InstanceMethod("releaseWeights", &TrainerObject::release_weights),
       InstanceMethod("apply", &TrainerObject::apply), InstanceMethod("setParameters", &TrainerObject::set_parameters),
       InstanceMethod("zero", &TrainerObject::zero), InstanceMethod("gradient", &TrainerObject::gradient),
       InstanceMethod("norms", &TrainerObject::norms), InstanceMethod("roleNorms", &TrainerObject::role_norms),
       InstanceMethod("parameters", &TrainerObject::parameters), InstanceMethod("parameter", &TrainerObject::parameter),
       InstanceMethod("state", &TrainerObject::state), InstanceMethod("restore", &TrainerObject::restore),
       InstanceMethod("memory", &TrainerObject::memory)});
}

void register_trainer(Napi::Env env, Napi::Object exports) {
  auto function = TrainerObject::define(env);
  constructor(env, TrainerObject::kName) = Napi::Persistent(function);
  exports.Set("Trainer", function);
}

}  // namespace rolegrad::bindings
