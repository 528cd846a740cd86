// The classes NativeGenerator (decoding of many sequences together) and the role router.

#include <algorithm>
#include <mutex>

#include "bindings/engine.h"

namespace rolegrad::bindings {

struct GeneratorObject::State : Dependent {
  std::vector<std::shared_ptr<LoadedModel>> models;  // each once
  std::unique_ptr<Generator> generator;
  std::vector<std::unique_ptr<WeightsHold>> weights;
  std::atomic<bool> interrupt{false};
  std::atomic<bool> broken{false};  // decoding failed, or was aborted, in the midst of a step

  void release() override {
    std::lock_guard lock(mutex);
    end();
  }
  void set_running(bool now) {
    std::lock_guard lock(mutex);
    running = now;
    if (closed && !running) end();
  }
  void close() {
    std::lock_guard lock(mutex);
    closed = true;
    if (!running) end();
  }
  void end() {
    generator.reset();
    weights.clear();
  }

  std::mutex mutex;  // what follows is changed by the JavaScript thread and at the end of a job
  bool running = false, closed = false;
};

namespace {

std::vector<std::vector<uint8_t>> byte_arrays(const Napi::Value& value, const std::string& name) {
  if (!value.IsArray()) expected("an array of Uint8Array", name, value);
  auto list = value.As<Napi::Array>();
  std::vector<std::vector<uint8_t>> out;
  out.reserve(list.Length());
  for (uint32_t i = 0; i < list.Length(); i++) {
    Napi::Value item = list.Get(i);
    out.push_back(copy_argument<uint8_t>(item, name));
  }
  return out;
}

uint64_t word_argument(const Napi::Value& value, const std::string& name) {
  if (!value.IsBigInt()) expected("a BigInt", name, value);
  bool lossless = true;
  return value.As<Napi::BigInt>().Uint64Value(&lossless);
}

const char* kind_name(Generator::EventKind kind) {
  switch (kind) {
    case Generator::EventKind::token:
      return "token";
    case Generator::EventKind::call:
      return "call";
    case Generator::EventKind::stop:
      return "stop";
    default:
      return "length";
  }
}

/// annotateRoles(config, tokenBytes[], sampled Uint8Array) -> Int8Array
Napi::Value annotate(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    RouterConfig config = router_config(info[0]);
    auto tokens = byte_arrays(info[1], "tokenBytes");
    auto sampled = typed_array_argument<uint8_t>(info[2], "sampled");
    if (sampled.size() != tokens.size())
      throw Error("ERR_SHAPE", "Expected sampled of the length of tokenBytes (" + std::to_string(tokens.size()) +
                                   ") but received " + std::to_string(sampled.size()));
    RoleRouter router(config);
    std::vector<int8_t> roles;
    for (size_t t = 0; t < tokens.size(); t++) roles.push_back(sampled[t] ? router.sampled(tokens[t]) : router.given());
    return to_typed_array<int8_t>(env, roles);
  });
}

}  // namespace

RouterConfig router_config(const Napi::Value& value) {
  auto o = object_argument(value, "router");
  RouterConfig config;
  config.base = int8_t(integer_argument(o.Get("base"), "base", 0, 127));
  auto spans = array_argument(o.Get("spans"), "spans");
  for (uint32_t i = 0; i < spans.Length(); i++) {
    auto span = object_argument(spans.Get(i), "spans");
    config.spans.push_back({string_argument(span.Get("open"), "open"), string_argument(span.Get("close"), "close"),
                            int8_t(integer_argument(span.Get("role"), "role", 0, 127)),
                            span.Get("call").IsUndefined() || boolean_argument(span.Get("call"), "call")});
    if (config.spans.back().open.empty() || config.spans.back().close.empty())
      throw Error("ERR_INVALID_ARGUMENT", "Expected tags that are not empty");
  }
  return config;
}

/// new NativeGenerator([{ model, adapters | null, adapterOfRole }], { maxSequences, maxLength, cacheTokens?, chunk?,
/// tokenBytes, router, writerOfRole?, sharedCache?, shuffleRoutes?, tellTokens? })
GeneratorObject::GeneratorObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<GeneratorObject>(info) {
  guard(info.Env(), [&] {
    state_ = std::make_shared<State>();
    auto o = object_argument(info[1], "options");
    Generator::Options options;
    options.max_sequences = integer_argument(o.Get("maxSequences"), "maxSequences", 1, 1 << 20);
    options.max_length = integer_argument(o.Get("maxLength"), "maxLength", 2, 1 << 24);
    if (auto tokens = o.Get("cacheTokens"); !tokens.IsUndefined())
      options.cache_tokens = integer_argument(tokens, "cacheTokens", 1, int64_t(1) << 40);
    if (auto chunk = o.Get("chunk"); !chunk.IsUndefined()) options.chunk = integer_argument(chunk, "chunk", 1, 1 << 24);
    options.token_bytes = byte_arrays(o.Get("tokenBytes"), "tokenBytes");
    options.router = router_config(o.Get("router"));
    options.shared_cache = o.Get("sharedCache").ToBoolean();
    options.shuffle_routes = o.Get("shuffleRoutes").ToBoolean();
    options.tell_tokens = o.Get("tellTokens").ToBoolean();
    auto list = array_argument(info[0], "writers");
    options.writer_of_role = optional_copy<int32_t>(o.Get("writerOfRole"), "writerOfRole");
    for (int32_t w : options.writer_of_role)
      if (w < 0 || w >= int32_t(list.Length())) throw Error("ERR_ROLE_RANGE", "Expected writers that exist");
    auto writers = writers_of(list, options);
    for (const auto& model : state_->models)
      state_->weights.push_back(std::make_unique<WeightsHold>(model, WeightsHold::Kind::rollout));
    state_->generator = std::make_unique<Generator>(std::move(writers), std::move(options));
    for (const auto& model : state_->models) model->add(state_);
  });
}

std::vector<Generator::Writer> GeneratorObject::writers_of(const Napi::Array& list, const Generator::Options& options) {
  if (list.Length() == 0) throw Error("ERR_INVALID_ARGUMENT", "Expected at least one writer");
  size_t roles = size_t(options.router.base) + 1;
  for (const auto& span : options.router.spans) roles = std::max(roles, size_t(span.role) + 1);
  std::vector<Generator::Writer> writers;
  for (uint32_t i = 0; i < list.Length(); i++) {
    auto item = object_argument(list.Get(i), "writer");
    const std::shared_ptr<LoadedModel>& model = ModelObject::of(item.Get("model"));
    AdapterList adapters = AdaptersObject::list_for(model, item.Get("adapters"));
    auto routes = copy_argument<int32_t>(item.Get("adapterOfRole"), "adapterOfRole");
    for (int32_t a : routes)
      if (a < -1 || a >= int32_t(adapters.size()))
        throw Error("ERR_ROLE_RANGE", "Expected routes to adapters that exist");
    if (routes.size() < roles || (!options.writer_of_role.empty() && options.writer_of_role.size() != routes.size()))
      throw Error("ERR_ROLE_RANGE", "Expected a route for every role of the router");
    if (std::find(state_->models.begin(), state_->models.end(), model) == state_->models.end())
      state_->models.push_back(model);
    writers.push_back({model->model.get(), std::move(adapters), std::move(routes), &model->decode_memory});
  }
  return writers;
}

/// The generator: what it is asked and told counts from its next step on.
Generator& GeneratorObject::open() const {
  for (const auto& model : state_->models) model->check_open();
  std::lock_guard lock(state_->mutex);
  if (state_->closed) throw Error("ERR_CLOSED", "Expected an open generator but it was closed");
  if (state_->broken)
    throw Error("ERR_GENERATOR_BROKEN", "Expected a generator whose last run ended well: make another one");
  return *state_->generator;
}

/// add(ids, { temperature, topP, topK, seed: BigInt, stream: BigInt, maxNewTokens, stopIds: Int32Array }) -> number
Napi::Value GeneratorObject::add(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    Generator& generator = open();
    Generator::Request request;
    request.ids = copy_argument<int32_t>(info[0], "inputIds");
    auto o = object_argument(info[1], "request");
    request.sampling.temperature = number_argument(o.Get("temperature"), "temperature");
    request.sampling.top_p = number_argument(o.Get("topP"), "topP");
    request.sampling.top_k = int(integer_argument(o.Get("topK"), "topK", 0));
    request.key = {word_argument(o.Get("seed"), "seed"), word_argument(o.Get("stream"), "stream")};
    request.max_new_tokens = integer_argument(o.Get("maxNewTokens"), "maxNewTokens", 1);
    request.stop_ids = copy_argument<int32_t>(o.Get("stopIds"), "stopIds");
    return Napi::Number::New(env, double(generator.add(std::move(request))));
  });
}

void GeneratorObject::append(const Napi::CallbackInfo& info) {
  guard(info.Env(), [&] {
    open().append(integer_argument(info[0], "sequence", 0, int64_t(1) << 50),
                  typed_array_argument<int32_t>(info[1], "ids"));
  });
}

namespace {

/// What a run has to tell: collected on the engine's thread, and handed over on JavaScript's, in order.
struct Told {
  std::mutex mutex;
  std::vector<Generator::Event> events;

  void add(std::vector<Generator::Event> more) {
    std::lock_guard lock(mutex);
    std::move(more.begin(), more.end(), std::back_inserter(events));
  }
  Napi::Array take(Napi::Env env) {
    std::vector<Generator::Event> list;
    {
      std::lock_guard lock(mutex);
      list.swap(events);
    }
    auto out = Napi::Array::New(env);
    uint32_t i = 0;
    for (const auto& event : list) out.Set(i++, to_object(env, event));
    return out;
  }

 private:
  static Napi::Object to_object(Napi::Env env, const Generator::Event& event) {
    auto item = Napi::Object::New(env);
    item.Set("id", double(event.id));
    item.Set("kind", kind_name(event.kind));
    if (event.kind == Generator::EventKind::token) {
      item.Set("token", event.token);
      item.Set("role", int(event.role));
      item.Set("logprob", event.logprob);
    }
    if (event.kind == Generator::EventKind::call) {
      const auto* bytes = reinterpret_cast<const uint8_t*>(event.text.data());
      item.Set("span", event.span);
      item.Set("text", to_typed_array<uint8_t>(env, std::span(bytes, event.text.size())));
    }
    return item;
  }
};

/// Calls a JavaScript function with what has been told since.
class Teller {
 public:
  Teller(Napi::Env env, Napi::Function function, std::shared_ptr<Told> told)
      : function_(Napi::ThreadSafeFunction::New(env, function, "rolegrad events", 0, 1)), told_(std::move(told)) {}
  Teller(const Teller&) = delete;
  ~Teller() {
    if (!closed_) function_.Release();
  }
  /// From any thread. A closing environment takes the function away with its answer: it must not be touched again.
  void call() {
    if (closed_) return;
    closed_ = function_.NonBlockingCall([told = told_](Napi::Env env, Napi::Function function) {
      if (auto list = told->take(env); list.Length() > 0) function.Call({list});
    }) == napi_closing;
  }

 private:
  Napi::ThreadSafeFunction function_;
  std::shared_ptr<Told> told_;
  bool closed_ = false;
};

}  // namespace

/// run(steps, tell?) -> { promise: events }. With tell(events), which must not throw, events come as they happen and
/// decoding goes on; the promise has those that were not told.
Napi::Value GeneratorObject::run(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    open();
    {
      std::lock_guard lock(state_->mutex);
      if (state_->running) throw Error("ERR_BUSY", "Expected no decoding to be running while another begins");
    }
    int64_t steps = integer_argument(info[0], "steps", 1);
    auto state = state_;
    auto told = std::make_shared<Told>();
    std::shared_ptr<Teller> tell;
    if (info[1].IsFunction()) tell = std::make_shared<Teller>(env, info[1].As<Napi::Function>(), told);
    state->interrupt.store(false);
    state->set_running(true);
    std::shared_ptr<void> running(nullptr, [state](void*) { state->set_running(false); });
    std::vector<std::shared_ptr<ModelLease>> leases;
    for (const auto& model : state->models) leases.push_back(lease(model));
    return run_async(
        env,
        [=, leases = std::move(leases), running = std::move(running)](const std::atomic<bool>&) {
          std::function<void(std::vector<Generator::Event>)> add;
          if (tell)
            add = [&](std::vector<Generator::Event> events) {
              told->add(std::move(events));
              tell->call();
            };
          try {
            told->add(state->generator->run(steps, state->interrupt, add));
          } catch (...) {
            state->broken.store(true);
            throw;
          }
        },
        [=](Napi::Env js) -> Napi::Value { return told->take(js); }, "a decoding step");
  });
}

/// Makes a running run() return after the step it is in.
void GeneratorObject::interrupt(const Napi::CallbackInfo&) { state_->interrupt.store(true); }

/// take(id) -> { ids, roles, sampled, logprobs, routing? }
Napi::Value GeneratorObject::take(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    auto result = open().take(integer_argument(info[0], "sequence", 0, int64_t(1) << 50));
    auto out = Napi::Object::New(env);
    out.Set("ids", to_typed_array<int32_t>(env, result.ids));
    out.Set("roles", to_typed_array<int8_t>(env, result.roles));
    out.Set("sampled", to_typed_array<uint8_t>(env, result.sampled));
    out.Set("logprobs", to_typed_array<float>(env, result.logprobs));
    if (!result.routing.empty()) out.Set("routing", to_typed_array<int8_t>(env, result.routing));
    return out;
  });
}

Napi::Value GeneratorObject::runnable(const Napi::CallbackInfo& info) {
  return guard(info.Env(), [&]() -> Napi::Value { return Napi::Number::New(info.Env(), double(open().runnable())); });
}

/// stats() -> { steps, sampledTokens, computedTokens, sharedTokens, recomputedTokens, preemptions, peakCacheTokens,
/// cacheTokens }
Napi::Value GeneratorObject::stats(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    const Generator& generator = open();
    const Generator::Stats stats = generator.stats();
    auto out = Napi::Object::New(env);
    out.Set("steps", double(stats.steps));
    out.Set("sampledTokens", double(stats.sampled));
    out.Set("computedTokens", double(stats.computed));
    out.Set("sharedTokens", double(stats.shared));
    out.Set("recomputedTokens", double(stats.recomputed));
    out.Set("preemptions", double(stats.preemptions));
    out.Set("peakCacheTokens", double(stats.peak_pages * KvPages::kPage));
    out.Set("cacheTokens", double(generator.cache_tokens()));
    return out;
  });
}

/// Gives the cache back, at the end of a run that is under way.
void GeneratorObject::close(const Napi::CallbackInfo&) { state_->close(); }

Napi::Function GeneratorObject::define(Napi::Env env) {
  return DefineClass(
      env, kName,
      {InstanceMethod("add", &GeneratorObject::add), InstanceMethod("append", &GeneratorObject::append),
       InstanceMethod("run", &GeneratorObject::run), InstanceMethod("interrupt", &GeneratorObject::interrupt),
       InstanceMethod("take", &GeneratorObject::take), InstanceMethod("runnable", &GeneratorObject::runnable),
       InstanceMethod("stats", &GeneratorObject::stats), InstanceMethod("close", &GeneratorObject::close)});
}

void register_generator(Napi::Env env, Napi::Object exports) {
  auto function = GeneratorObject::define(env);
  constructor(env, GeneratorObject::kName) = Napi::Persistent(function);
  exports.Set("Generator", function);
  exports.Set("annotateRoles", Napi::Function::New(env, annotate, "annotateRoles"));
}

}  // namespace rolegrad::bindings
