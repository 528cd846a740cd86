// The class NativeModel: loading, forward passes.

#include <cstring>
#include <utility>

#include "bindings/engine.h"
#include "bindings/routed_linear.h"
#include "model/added_rows.h"

namespace rolegrad::bindings {
namespace {

std::unique_ptr<Backend> make_backend(const std::string& device, Precision precision, const std::string& library) {
  if (device == "cpu") return make_cpu_backend(precision);
  if (device == "cuda") return make_cuda_backend(library, precision);
  if (device == "cpu-reference") return make_reference_backend(precision);
  throw Error("ERR_DEVICE", "Expected device \"cpu\", \"cuda\" or \"cpu-reference\" but received \"" + device + "\"");
}

ModelConfig config_argument(const Napi::Object& o) {
  auto integer = [&](const char* name) { return integer_argument(o.Get(name), name, 1, int64_t(1) << 31); };
  ModelConfig c;
  c.vocab_size = integer("vocabSize");
  c.hidden_size = integer("hiddenSize");
  c.layers = integer("layers");
  c.heads = integer("heads");
  c.kv_heads = integer("kvHeads");
  c.head_dim = integer("headDim");
  c.intermediate_size = integer("intermediateSize");
  c.rms_norm_eps = number_argument(o.Get("rmsNormEps"), "rmsNormEps");
  c.rope_theta = number_argument(o.Get("ropeTheta"), "ropeTheta");
  c.tied = boolean_argument(o.Get("tied"), "tied");
  c.attention_bias = boolean_argument(o.Get("attentionBias"), "attentionBias");
  c.output_bias = boolean_argument(o.Get("outputBias"), "outputBias");
  c.mlp_bias = boolean_argument(o.Get("mlpBias"), "mlpBias");
  c.qk_norm = boolean_argument(o.Get("queryKeyNorm"), "queryKeyNorm");
  if (Napi::Value scaling = o.Get("ropeScaling"); !scaling.IsNull()) {
    auto s = object_argument(scaling, "ropeScaling");
    c.rope_scaling = {number_argument(s.Get("factor"), "factor"),
                      number_argument(s.Get("lowFrequencyFactor"), "lowFrequencyFactor"),
                      number_argument(s.Get("highFrequencyFactor"), "highFrequencyFactor"),
                      number_argument(s.Get("originalMaxPositions"), "originalMaxPositions")};
  }
  if (c.heads % c.kv_heads != 0 || c.head_dim % 2 != 0)
    throw Error("ERR_MODEL_CONFIG", "Expected heads to be a multiple of kvHeads and an even headDim");
  return c;
}

struct TensorEntry {
  std::string name, dtype;
  size_t file;
  std::vector<int64_t> shape;
  double begin, end;
};

/// loadModel(config, files, tensors, device, f32, added, precision, library): tensors [{ name, file, dtype, shape,
/// begin, end
/// }], offsets within the file; added null, or { fresh: Int32Array, known }: the vocabulary is larger than the
/// checkpoint's, the rows `fresh` are the mean of the first `known`; precision "exact" or "bf16-multiply"; library: of
/// device "cuda", its path (empty where there is none).
Napi::Value load_model(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    ModelConfig config = config_argument(object_argument(info[0], "config"));
    std::vector<std::string> files;
    auto names = array_argument(info[1], "files");
    for (uint32_t i = 0; i < names.Length(); i++) files.push_back(string_argument(names.Get(i), "files"));
    std::vector<TensorEntry> entries;
    auto list = array_argument(info[2], "tensors");
    for (uint32_t i = 0; i < list.Length(); i++) {
      auto o = object_argument(list.Get(i), "tensors");
      TensorEntry e{string_argument(o.Get("name"), "name"),
                    string_argument(o.Get("dtype"), "dtype"),
                    size_t(integer_argument(o.Get("file"), "file", 0, int64_t(files.size()) - 1)),
                    {},
                    0,
                    0};
      e.begin = double(integer_argument(o.Get("begin"), "begin", 0, int64_t(1) << 52));
      e.end = double(integer_argument(o.Get("end"), "end", 0, int64_t(1) << 52));
      auto shape = array_argument(o.Get("shape"), "shape");
      for (uint32_t d = 0; d < shape.Length(); d++)
        e.shape.push_back(integer_argument(shape.Get(d), "shape", 0, int64_t(1) << 40));
      entries.push_back(std::move(e));
    }
    std::string device = string_argument(info[3], "device");
    bool f32 = boolean_argument(info[4], "f32");
    bool adds = !info[5].IsNull() && !info[5].IsUndefined();
    std::vector<int32_t> fresh;
    int64_t known = 0;
    if (adds) {
      auto o = object_argument(info[5], "added");
      fresh = copy_argument<int32_t>(o.Get("fresh"), "fresh");
      known = integer_argument(o.Get("known"), "known", 1, int64_t(1) << 31);
    }
    const Precision precision = precision_argument(info[6], "precision");
    const std::string library = string_argument(info[7], "library");
    auto loaded = std::make_shared<LoadedModel>();
    return run_async(
        env,
        [=](const std::atomic<bool>&) {
          for (const auto& file : files) loaded->files.push_back(std::make_unique<MappedFile>(file));
          for (const auto& e : entries) {
            const MappedFile& file = *loaded->files[e.file];
            bool bf16_type = e.dtype == "BF16";
            if (!bf16_type && e.dtype != "F32") continue;  // what the architecture needs is checked by name below
            // Checked again here: the file may have changed since its header was read.
            unsigned __int128 elements = 1;
            for (int64_t d : e.shape) elements *= static_cast<unsigned __int128>(d);
            auto begin = size_t(e.begin), end = size_t(e.end);
            if (end < begin || end > file.size() || elements * (bf16_type ? 2 : 4) != end - begin)
              throw Error("ERR_SAFETENSORS", "Expected the tensor " + e.name + " to lie within " + files[e.file] +
                                                 " and to match its shape: is the file complete?");
            const unsigned char* data = file.data() + begin;
            const MappedFile* mapped = &file;
            if (begin % (bf16_type ? 2 : 4) != 0) {  // the format allows it; files of its first years have it
              loaded->copies.push_back(std::make_unique<unsigned char[]>(end - begin));
              std::memcpy(loaded->copies.back().get(), data, end - begin);
              data = loaded->copies.back().get();
              mapped = nullptr;
            }
            loaded->tensors[e.name] = {data, bf16_type ? DType::bf16 : DType::f32, e.shape, mapped};
          }
          size_t aligned = loaded->copies.size();
          if (adds) add_rows(loaded->tensors, loaded->copies, config, fresh, known);
          loaded->model =
              std::make_unique<Model>(make_backend(device, precision, library), config, loaded->tensors, f32);
          // Full training reads the checkpoint again; it needs f32.
          if (loaded->model->embedding().dtype() != DType::f32) loaded->copies.resize(aligned);
          for (const auto& file : loaded->files) file->release();  // packed: the panels are the only copy
          loaded->arena = std::make_unique<Arena>(loaded->model->backend());
        },
        [loaded](Napi::Env env) -> Napi::Value {
          Napi::Object object = constructor(env, ModelObject::kName).New({});
          ModelObject::adopt(object, loaded);
          return object;
        },
        "the weights of a model");
  });
}

}  // namespace

void check_batch(const Model& model, std::span<const int32_t> ids, std::span<const int32_t> cu_seqlens,
                 std::span<const int8_t> roles, size_t role_count) {
  if (cu_seqlens.size() < 2 || ids.empty())
    throw Error("ERR_EMPTY_BATCH", "Expected at least one sequence with a token but received an empty batch");
  if (cu_seqlens.front() != 0 || cu_seqlens.back() != int64_t(ids.size()))
    throw Error("ERR_SHAPE", "Expected cuSeqlens to run from 0 to inputIds.length (" + std::to_string(ids.size()) +
                                 ") but received " + std::to_string(cu_seqlens.front()) + " .. " +
                                 std::to_string(cu_seqlens.back()));
  for (size_t s = 0; s + 1 < cu_seqlens.size(); s++)
    if (cu_seqlens[s] >= cu_seqlens[s + 1])
      throw Error("ERR_SHAPE", "Expected cuSeqlens to increase but sequence " + std::to_string(s) + " has no token");
  for (size_t t = 0; t < ids.size(); t++)
    if (ids[t] < 0 || ids[t] >= model.config().vocab_size)
      throw Error("ERR_TOKEN_RANGE", "Expected token ids from 0 to " + std::to_string(model.config().vocab_size - 1) +
                                         " but inputIds[" + std::to_string(t) + "] is " + std::to_string(ids[t]));
  if (!roles.empty() && roles.size() != ids.size())
    throw Error("ERR_SHAPE", "Expected roles of the length of inputIds (" + std::to_string(ids.size()) +
                                 ") but received " + std::to_string(roles.size()));
  for (size_t t = 0; t < roles.size(); t++)
    if (roles[t] < -1 || roles[t] >= int64_t(role_count))
      throw Error("ERR_ROLE_RANGE", "Expected roles from -1 to " + std::to_string(int64_t(role_count) - 1) +
                                        " but roles[" + std::to_string(t) + "] is " + std::to_string(roles[t]));
}

ModelObject::ModelObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ModelObject>(info) {
  info.This().As<Napi::Object>().TypeTag(&kTag);
}

// Not through an argument of the constructor: Node 20 never frees the box of an External that lives until the end.
void ModelObject::adopt(const Napi::Object& object, std::shared_ptr<LoadedModel> model) {
  ModelObject& self = *Unwrap(object);
  self.model_ = std::move(model);
  self.accounted_ = int64_t(self.model_->model->weight_bytes());
  Napi::MemoryManagement::AdjustExternalMemory(object.Env(), self.accounted_);
}

ModelObject::~ModelObject() { forget(); }

// Without close() adapters and trainers that are still there keep the weights.
void ModelObject::forget() {
  if (!model_) return;
  model_.reset();
  Napi::MemoryManagement::AdjustExternalMemory(Env(), -accounted_);
}

const std::shared_ptr<LoadedModel>& ModelObject::of(const Napi::Value& value) {
  const Napi::Object object = object_argument(value, "model");
  if (!object.CheckTypeTag(&kTag)) expected("a model", "model", value);
  auto& model = Unwrap(object)->model_;
  if (!model) throw Error("ERR_MODEL_CLOSED", "Expected an open model but it was closed");
  return model;
}

/// forward(ids, cuSeqlens, roles | null, adapters | null, adapterOfRole, temperature, logits, wanted | null)
Napi::Value ModelObject::forward(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    auto model = of(info.This());
    struct Job {
      std::vector<int32_t> ids, cu, adapter;
      std::vector<uint8_t> wanted;
      AdapterList adapters;
      ScoreResult result;
    };
    auto job = std::make_shared<Job>();
    job->ids = copy_argument<int32_t>(info[0], "inputIds");
    job->cu = copy_argument<int32_t>(info[1], "cuSeqlens");
    auto roles = optional_copy<int8_t>(info[2], "roles");
    auto table = copy_argument<int32_t>(info[4], "adapterOfRole");
    check_batch(*model->model, job->ids, job->cu, roles, table.size());
    job->adapters = AdaptersObject::list_for(model, info[3]);
    job->adapter.assign(job->ids.size(), -1);
    for (size_t t = 0; t < roles.size(); t++) job->adapter[t] = roles[t] < 0 ? -1 : table[size_t(roles[t])];
    auto temperature = float(number_argument(info[5], "temperature"));
    bool logits = boolean_argument(info[6], "logits");
    job->wanted = optional_copy<uint8_t>(info[7], "wanted");
    return run_async(
        env,
        [=, model = lease(model)](const std::atomic<bool>&) {
          const AdapterList adapters = std::exchange(job->adapters, {});  // they go with the model
          job->result = score(*(*model)->model, *(*model)->arena, job->ids, job->cu, job->adapter, adapters,
                              temperature, logits, job->wanted);
        },
        [=](Napi::Env env) -> Napi::Value {
          auto out = Napi::Object::New(env);
          out.Set("logprobs", to_typed_array<float>(env, job->result.logprobs));
          if (logits) out.Set("logits", to_typed_array<float>(env, job->result.logits));
          return out;
        },
        "a forward pass of " + std::to_string(job->ids.size()) + " tokens");
  });
}

Napi::Value ModelObject::info(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    const auto& model = of(info.This());
    auto out = Napi::Object::New(env);
    out.Set("backend", model->model->backend().name());
    out.Set("weightBytes", double(model->model->weight_bytes()));
    auto names = Napi::Array::New(env);
    uint32_t i = 0;
    for (const auto& [name, tensor] : model->tensors) names.Set(i++, name);
    out.Set("tensors", names);
    return out;
  });
}

/// updates(): of full training, that the weights have seen
Napi::Value ModelObject::updates(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value {
    const auto& model = of(info.This());
    model->check_open();
    return Napi::Number::New(info.Env(), double(model->model->updates()));
  });
}

Napi::Value ModelObject::close(const Napi::CallbackInfo& info) {
  if (model_) model_->close();
  forget();
  return info.Env().Undefined();
}

Napi::Function ModelObject::define(Napi::Env env) {
  return DefineClass(env, kName,
                     {InstanceMethod("forward", &ModelObject::forward), InstanceMethod("info", &ModelObject::info),
                      InstanceMethod("updates", &ModelObject::updates), InstanceMethod("close", &ModelObject::close)});
}

void register_model(Napi::Env env, Napi::Object exports) {
  constructor(env, ModelObject::kName) = Napi::Persistent(ModelObject::define(env));
  exports.Set("loadModel", Napi::Function::New(env, load_model, "loadModel"));
}

}  // namespace rolegrad::bindings
