#pragma once
// What the JavaScript classes of the engine hold, and share with each other.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/loaded_model.h"
#include "bindings/run_async.h"
#include "model/generator.h"
#include "train/trainer.h"

namespace rolegrad::bindings {

/// The pairs that live on a model; empty once it is closed.
struct SharedAdapters : Dependent {
  void release() override {
    store->adapters.clear();
    store->tokens.reset();
  }
  std::shared_ptr<LoadedModel> model;
  std::shared_ptr<AdapterStore> store = std::make_shared<AdapterStore>();
  /// Jobs of trainers that have not ended: all of them, and those that replace pairs.
  std::atomic<int> users{0}, writers{0};
};

class ModelObject : public Napi::ObjectWrap<ModelObject> {
 public:
  static constexpr const char* kName = "NativeModel";
  /// Tells its objects from those of other classes, whose insides are others.
  static constexpr napi_type_tag kTag{0x726f6c6567726164, 1};
  explicit ModelObject(const Napi::CallbackInfo& info);
  ~ModelObject() override;
  static Napi::Function define(Napi::Env env);
  static const std::shared_ptr<LoadedModel>& of(const Napi::Value& value);
  static void adopt(const Napi::Object& object, std::shared_ptr<LoadedModel> model);

 private:
  Napi::Value forward(const Napi::CallbackInfo& info);
  Napi::Value info(const Napi::CallbackInfo& info);
  Napi::Value updates(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);
  void forget();
  std::shared_ptr<LoadedModel> model_;
  int64_t accounted_ = 0;
};

class AdaptersObject : public Napi::ObjectWrap<AdaptersObject> {
 public:
  static constexpr const char* kName = "NativeAdapters";
  static constexpr napi_type_tag kTag{0x726f6c6567726164, 2};
  explicit AdaptersObject(const Napi::CallbackInfo& info);
  static Napi::Function define(Napi::Env env);
  static const std::shared_ptr<SharedAdapters>& of(const Napi::Value& value);
  /// The pairs as they are now, for work on `model`: another model's are refused, null is none.
  static AdapterList list_for(const std::shared_ptr<LoadedModel>& model, const Napi::Value& value);

 private:
  Napi::Value get(const Napi::CallbackInfo& info);
  void set(const Napi::CallbackInfo& info);
  Napi::Value norm(const Napi::CallbackInfo& info);
  Napi::Value tokens(const Napi::CallbackInfo& info);
  void set_tokens(const Napi::CallbackInfo& info);
  Napi::Value router(const Napi::CallbackInfo& info);
  void set_router(const Napi::CallbackInfo& info);
  void idle() const;
  std::shared_ptr<SharedAdapters> adapters_;
};

class TrainerObject : public Napi::ObjectWrap<TrainerObject> {
 public:
  static constexpr const char* kName = "NativeTrainer";
  explicit TrainerObject(const Napi::CallbackInfo& info);
  static Napi::Function define(Napi::Env env);

 private:
  struct State;
  Napi::Value accumulate(const Napi::CallbackInfo& info);
  Napi::Value leak(const Napi::CallbackInfo& info);
  Napi::Value set_parameters(const Napi::CallbackInfo& info);
  Napi::Value apply(const Napi::CallbackInfo& info);
  void hold_weights(const Napi::CallbackInfo& info);
  void release_weights(const Napi::CallbackInfo& info);
  void zero(const Napi::CallbackInfo& info);
  Napi::Value gradient(const Napi::CallbackInfo& info);
  Napi::Value token_gradient(const Napi::CallbackInfo& info);
  Napi::Value router_gradient(const Napi::CallbackInfo& info);
  Napi::Value parameters(const Napi::CallbackInfo& info);
  Napi::Value parameter(const Napi::CallbackInfo& info);
  Napi::Value state(const Napi::CallbackInfo& info);
  void restore(const Napi::CallbackInfo& info);
  Napi::Value norms(const Napi::CallbackInfo& info);
  Napi::Value role_norms(const Napi::CallbackInfo& info);
  Napi::Value memory(const Napi::CallbackInfo& info);
  std::shared_ptr<State> state_;
  void open() const;
  void idle() const;
};

class GeneratorObject : public Napi::ObjectWrap<GeneratorObject> {
 public:
  static constexpr const char* kName = "NativeGenerator";
  explicit GeneratorObject(const Napi::CallbackInfo& info);
  static Napi::Function define(Napi::Env env);

 private:
  struct State;
  Napi::Value add(const Napi::CallbackInfo& info);
  void append(const Napi::CallbackInfo& info);
  Napi::Value run(const Napi::CallbackInfo& info);
  void interrupt(const Napi::CallbackInfo& info);
  Napi::Value take(const Napi::CallbackInfo& info);
  Napi::Value runnable(const Napi::CallbackInfo& info);
  Napi::Value stats(const Napi::CallbackInfo& info);
  void close(const Napi::CallbackInfo& info);
  Generator& open() const;
  std::vector<Generator::Writer> writers_of(const Napi::Array& list, const Generator::Options& options);
  std::shared_ptr<State> state_;
};

/// "model.layers.3.mlp.up_proj" -> layer, group and module; ERR_NO_MODULE otherwise.
struct ModuleAddress {
  int64_t layer;
  int group, module;
};
ModuleAddress module_address(const Model& model, const std::string& name);

/// (layer, block) of a router of soft routing: block 0 attention, 1 mlp. ERR_NO_MODULE where the adapters have none.
std::pair<int64_t, int> router_address(const AdapterStore& store, const Model& model, const Napi::CallbackInfo& info);

/// { learningRate, beta1, beta2, epsilon, weightDecay, maxGradNorm } of one optimizer step.
AdamWStep adamw_argument(const Napi::Object& o);

/// { base, spans: [{ open, close, role }] } of byte strings.
RouterConfig router_config(const Napi::Value& value);

template <class T>
std::vector<T> copy_argument(const Napi::Value& value, const std::string& name) {
  auto view = typed_array_argument<T>(value, name);
  return {view.begin(), view.end()};
}
template <class T>
std::vector<T> optional_copy(const Napi::Value& value, const std::string& name) {
  return value.IsUndefined() || value.IsNull() ? std::vector<T>{} : copy_argument<T>(value, name);
}

/// ids within the vocabulary, cu_seqlens increasing from 0 to their number, roles [T] within the table (or empty).
void check_batch(const Model& model, std::span<const int32_t> ids, std::span<const int32_t> cu_seqlens,
                 std::span<const int8_t> roles, size_t role_count);

}  // namespace rolegrad::bindings
