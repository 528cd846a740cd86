// Operations on plain typed arrays: the optimizer, one routed linear, and what the benchmarks measure.

#include <chrono>
#include <cmath>

#include "bindings/engine.h"
#include "core/executor.h"
#include "ops/arena.h"
#include "ops/cpu/cpu_backend.h"

namespace rolegrad::bindings {
namespace {

std::shared_ptr<Backend> backend_named(const std::string& device) {
  // One per device: its scratch is kept between calls. Only jobs of the stream use it.
  static std::map<std::string, std::shared_ptr<Backend>> kept;
  auto& backend = kept[device];
  if (!backend) backend = device == "cpu-reference" ? make_reference_backend() : make_cpu_backend(device == "cpu" ? "" : device);
  return backend;
}

/// adamwStep(parameters, gradients, first, second, { learningRate, beta1, beta2, epsilon, weightDecay, maxGradNorm, step, sumOfSquares })
/// -> { parameters, first, second }
Napi::Value adamw_step(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    struct Job {
      std::vector<float> p, m, v;
      std::vector<double> g;
      AdamWStep step;
      double sum;
    };
    auto job = std::make_shared<Job>();
    job->p = copy_argument<float>(info[0], "parameters");
    job->g = copy_argument<double>(info[1], "gradients");
    job->m = copy_argument<float>(info[2], "first");
    job->v = copy_argument<float>(info[3], "second");
    if (job->g.size() != job->p.size() || job->m.size() != job->p.size() || job->v.size() != job->p.size())
      throw Error("ERR_SHAPE", "Expected parameters, gradients and moments of one length");
    auto o = object_argument(info[4], "step");
    AdamWStep& s = job->step;
    s.learning_rate = number_argument(o.Get("learningRate"), "learningRate");
    s.beta1 = number_argument(o.Get("beta1"), "beta1");
    s.beta2 = number_argument(o.Get("beta2"), "beta2");
    s.epsilon = number_argument(o.Get("epsilon"), "epsilon");
    s.weight_decay = number_argument(o.Get("weightDecay"), "weightDecay");
    s.max_norm = number_argument(o.Get("maxGradNorm"), "maxGradNorm");
    s.step = uint64_t(integer_argument(o.Get("step"), "step", 1, int64_t(1) << 50));
    job->sum = number_argument(o.Get("sumOfSquares"), "sumOfSquares");
    return run_async(
        env,
        [job](const std::atomic<bool>&) {
          int64_t n = int64_t(job->p.size());
          auto backend = backend_named("cpu");
          backend->adamw({job->p.data(), 1, n, n}, {job->g.data(), 1, n, n}, {job->m.data(), 1, n, n}, {job->v.data(), 1, n, n}, job->step,
                         &job->sum);
        },
        [job](Napi::Env env) -> Napi::Value {
          auto out = Napi::Object::New(env);
          out.Set("parameters", to_typed_array<float>(env, job->p));
          out.Set("first", to_typed_array<float>(env, job->m));
          out.Set("second", to_typed_array<float>(env, job->v));
          return out;
        });
  });
}

/// A routed linear's tensors on a backend.
struct Linear {
  std::shared_ptr<Backend> b;
  std::unique_ptr<Arena> arena;
  std::unique_ptr<PackedWeight> w;
  std::vector<LoraGroup> groups;
  std::vector<LoraGradient> gradients;
  std::vector<std::unique_ptr<Memory>> sums;
  Rows rows;

  std::vector<const LoraGroup*> set() const {
    std::vector<const LoraGroup*> s;
    for (const auto& g : groups) s.push_back(&g);
    return s;
  }
  Tensor put(std::span<const float> values, int64_t rows, int64_t cols) {
    Tensor t = arena->tensor(rows, cols);
    b->write(t, values.data());
    return t;
  }
};

struct LinearArguments {
  std::string device;
  std::vector<float> x, w, bias, dy;
  std::vector<std::vector<float>> a, bt;  // per adapter; bt [r, N]
  std::vector<float> scale;
  std::vector<int32_t> adapter, cu;
  int64_t t = 0, k = 0, n = 0;
};

std::shared_ptr<LinearArguments> linear_arguments(const Napi::Object& o, bool backward) {
  auto in = std::make_shared<LinearArguments>();
  in->device = string_argument(o.Get("device"), "device");
  in->x = copy_argument<float>(o.Get("x"), "x");
  in->w = copy_argument<float>(o.Get("w"), "w");
  in->bias = optional_copy<float>(o.Get("bias"), "bias");
  in->adapter = copy_argument<int32_t>(o.Get("roles"), "roles");
  in->cu = optional_copy<int32_t>(o.Get("cuSeqlens"), "cuSeqlens");
  in->t = int64_t(in->adapter.size());
  if (in->t == 0) throw Error("ERR_EMPTY_BATCH", "Expected at least one row but received an empty batch");
  if (in->cu.empty()) in->cu = {0, int32_t(in->t)};
  if (in->x.empty() || in->x.size() % size_t(in->t)) throw Error("ERR_SHAPE", "Expected x [T, K] for T = " + std::to_string(in->t) + " roles");
  in->k = int64_t(in->x.size()) / in->t;
  if (in->w.empty() || in->w.size() % size_t(in->k)) throw Error("ERR_SHAPE", "Expected w [N, K] for K = " + std::to_string(in->k));
  in->n = int64_t(in->w.size()) / in->k;
  if (!in->bias.empty() && int64_t(in->bias.size()) != in->n) throw Error("ERR_SHAPE", "Expected bias [N] for N = " + std::to_string(in->n));
  if (!o.Get("adapters").IsArray()) expected("an array", "adapters", o.Get("adapters"));
  auto list = o.Get("adapters").As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length(); i++) {
    auto pair = object_argument(list.Get(i), "adapters");
    auto a = copy_argument<float>(pair.Get("a"), "a"), b = copy_argument<float>(pair.Get("b"), "b");
    auto r = int64_t(a.size()) / in->k;
    if (r < 1 || int64_t(a.size()) != r * in->k || int64_t(b.size()) != r * in->n)
      throw Error("ERR_SHAPE", "Expected a [r, K] and b [N, r] for adapter " + std::to_string(i));
    std::vector<float> bt(b.size());
    for (int64_t n = 0; n < in->n; n++)
      for (int64_t j = 0; j < r; j++) bt[size_t(j * in->n + n)] = b[size_t(n * r + j)];
    in->a.push_back(std::move(a));
    in->bt.push_back(std::move(bt));
    in->scale.push_back(float(number_argument(pair.Get("scale"), "scale")));
  }
  for (size_t t = 0; t < in->adapter.size(); t++)
    if (in->adapter[t] < -1 || in->adapter[t] >= int64_t(in->a.size()))
      throw Error("ERR_ROLE_RANGE", "Expected roles from -1 to " + std::to_string(int64_t(in->a.size()) - 1) + " but roles[" + std::to_string(t) +
                                        "] is " + std::to_string(in->adapter[t]));
  if (backward) {
    in->dy = copy_argument<float>(o.Get("dy"), "dy");
    if (int64_t(in->dy.size()) != in->t * in->n) throw Error("ERR_SHAPE", "Expected dy [T, N]");
  }
  return in;
}

Linear make_linear(const LinearArguments& in) {
  Linear l;
  l.b = backend_named(in.device);
  l.arena = std::make_unique<Arena>(*l.b);
  l.rows = Rows(in.cu, in.adapter, int(in.a.size()));
  WeightSource source{in.w.data(), DType::f32, in.n, in.k, in.bias.empty() ? nullptr : in.bias.data()};
  l.w = l.b->pack(std::span(&source, 1));
  for (size_t v = 0; v < in.a.size(); v++) {
    LoraGroup g;
    int64_t r = int64_t(in.a[v].size()) / in.k;
    g.rank = int(r);
    g.scale = in.scale[v];
    g.present = {true};
    g.a = l.put(in.a[v], r, in.k);
    g.bt = {l.put(in.bt[v], r, in.n)};
    g.at = l.arena->tensor(in.k, r);
    g.b = {l.arena->tensor(in.n, r)};
    l.b->refresh_lora(g);
    l.groups.push_back(std::move(g));
    auto sum = [&](int64_t rows, int64_t cols) {
      l.sums.push_back(l.b->allocate(size_t(rows * cols) * sizeof(double)));
      return GradTensor{static_cast<double*>(l.sums.back()->data()), rows, cols, cols};
    };
    GradTensor a = sum(r, in.k), bt = sum(r, in.n);
    l.gradients.push_back({a, {bt}});
  }
  return l;
}

std::vector<float> dense(Backend& b, const Tensor& t) {
  std::vector<float> values(size_t(t.rows * t.cols));
  b.read(values.data(), t);
  return values;
}

int64_t widest(const Linear& l) {
  int64_t r = 1;
  for (const auto& g : l.groups) r = std::max<int64_t>(r, g.rank);
  return r;
}

/// loraLinearForward({ device, x, w, bias?, roles, adapters: [{ a, b, scale }] }) -> y
Napi::Value lora_forward(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    auto in = linear_arguments(object_argument(info[0], "options"), false);
    auto y = std::make_shared<std::vector<float>>();
    return run_async(
        env,
        [=](const std::atomic<bool>&) {
          Linear l = make_linear(*in);
          Tensor x = l.put(in->x, in->t, in->k), out = l.arena->tensor(in->t, in->n), u = l.arena->tensor(in->t, widest(l));
          auto set = l.set();
          l.b->linear(out, u, x, *l.w, set, l.rows);
          *y = dense(*l.b, out);
        },
        [y](Napi::Env env) -> Napi::Value { return to_typed_array<float>(env, *y); });
  });
}

/// loraLinearBackward({ ..., dy }) -> { dx, adapters: [{ a, b }] }
Napi::Value lora_backward(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    auto in = linear_arguments(object_argument(info[0], "options"), true);
    struct Out {
      std::vector<float> dx;
      std::vector<std::vector<float>> a, b;
    };
    auto result = std::make_shared<Out>();
    return run_async(
        env,
        [=](const std::atomic<bool>&) {
          Linear l = make_linear(*in);
          Tensor x = l.put(in->x, in->t, in->k), dy = l.put(in->dy, in->t, in->n), y = l.arena->tensor(in->t, in->n);
          Tensor u = l.arena->tensor(in->t, widest(l)), du = l.arena->tensor(in->t, widest(l)), dx = l.arena->tensor(in->t, in->k);
          auto set = l.set();
          l.b->linear(y, u, x, *l.w, set, l.rows);
          l.b->linear_backward(dx, du, dy, *l.w, set, l.rows, false);
          std::vector<LoraGradient*> sinks;
          for (auto& g : l.gradients) sinks.push_back(&g);
          l.b->lora_gradient(sinks, u, du, x, dy, *l.w, set, l.rows);
          result->dx = dense(*l.b, dx);
          for (const auto& g : l.gradients) {
            std::vector<double> a(size_t(g.a.rows * g.a.cols)), bt(size_t(g.bt[0].rows * g.bt[0].cols));
            l.b->read(a.data(), g.a);
            l.b->read(bt.data(), g.bt[0]);
            result->a.emplace_back(a.begin(), a.end());
            std::vector<float> b(bt.size());
            for (int64_t j = 0; j < g.bt[0].rows; j++)
              for (int64_t n = 0; n < g.bt[0].cols; n++) b[size_t(n * g.bt[0].rows + j)] = float(bt[size_t(j * g.bt[0].cols + n)]);
            result->b.push_back(std::move(b));
          }
        },
        [result](Napi::Env env) -> Napi::Value {
          auto out = Napi::Object::New(env);
          auto list = Napi::Array::New(env);
          for (uint32_t i = 0; i < result->a.size(); i++) {
            auto pair = Napi::Object::New(env);
            pair.Set("a", to_typed_array<float>(env, result->a[i]));
            pair.Set("b", to_typed_array<float>(env, result->b[i]));
            list.Set(i, pair);
          }
          out.Set("dx", to_typed_array<float>(env, result->dx));
          out.Set("adapters", list);
          return out;
        });
  });
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// measureMachine() -> { isa, threads, fmaPeakGflops, readGBps }: best of several runs on all threads.
Napi::Value measure_machine(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    struct Out {
      std::string isa;
      int threads;
      double gflops = 0, gbps = 0;
    };
    auto out = std::make_shared<Out>();
    return run_async(
        env,
        [=](const std::atomic<bool>&) {
          auto backend = backend_named("cpu");
          const auto& k = static_cast<cpu::CpuBackend&>(*backend).kernels();
          auto& pool = Executor::shared();
          out->isa = k.isa;
          out->threads = pool.threads();
          std::vector<float> sink(size_t(pool.threads()) * 64);
          for (int run = 0; run < 5; run++) {
            constexpr int64_t kRounds = 4000000;
            double flops = 0, start = now();
            pool.parallel_for(pool.threads(), [&](int64_t i, int) {
              double each = k.fma_rounds(kRounds, &sink[size_t(i) * 64]);
              if (i == 0) flops = each;
            });
            out->gflops = std::max(out->gflops, flops * kRounds * pool.threads() / (now() - start) / 1e9);
          }
          size_t n = size_t(128) << 20;  // 512 MiB of floats: beyond any cache here
          std::vector<float> memory(n, 1.0f);
          for (int run = 0; run < 4; run++) {
            double start = now();
            int64_t part = int64_t(n) / pool.threads();
            pool.parallel_for(pool.threads(), [&](int64_t i, int) { k.read_memory(memory.data() + i * part, part, &sink[size_t(i) * 64]); });
            out->gbps = std::max(out->gbps, double(n) * 4 / (now() - start) / 1e9);
          }
        },
        [out](Napi::Env env) -> Napi::Value {
          auto o = Napi::Object::New(env);
          o.Set("isa", out->isa);
          o.Set("threads", out->threads);
          o.Set("fmaPeakGflops", out->gflops);
          o.Set("readGBps", out->gbps);
          return o;
        });
  });
}

/// measureLinear({ t, k, n, span, rank, roles, bf16, runs }) -> { plain, forward, forwardBackward }: median seconds of one call each, and
/// the largest relative difference of sampled outputs from a scalar chain.
Napi::Value measure_linear(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    auto o = object_argument(info[0], "options");
    auto integer = [&](const char* name) { return integer_argument(o.Get(name), name, 1); };
    int64_t t = integer("t"), k = integer("k"), n = integer("n"), span = integer("span"), rank = integer("rank"), roles = integer("roles"), runs = integer("runs");
    bool bf16_weights = boolean_argument(o.Get("bf16"), "bf16");
    struct Out {
      double plain = 0, forward = 0, both = 0, backward_plain = 0;
      int64_t wrong = 0;
    };
    auto out = std::make_shared<Out>();
    return run_async(
        env,
        [=](const std::atomic<bool>&) {
          LinearArguments in;
          in.device = "cpu";
          in.t = t, in.k = k, in.n = n;
          uint64_t position = 0;
          auto fill = [&](std::vector<float>& x, int64_t count) {
            x.resize(size_t(count));
            for (auto& v : x) v = float(uniform({7, 1}, position++) - 0.5);
          };
          fill(in.x, t * k);
          fill(in.w, n * k);
          fill(in.dy, t * n);
          std::vector<bf16> half(in.w.size());
          for (size_t i = 0; i < half.size(); i++) half[i] = float_to_bf16(in.w[i]);
          for (int64_t v = 0; v < roles; v++) {
            in.a.emplace_back();
            in.bt.emplace_back();
            fill(in.a.back(), rank * k);
            fill(in.bt.back(), rank * n);
            in.scale.push_back(2);
          }
          for (int64_t i = 0; i < t; i++) in.adapter.push_back(int32_t(i / span % roles));
          in.cu = {0, int32_t(t)};
          Linear l = make_linear(in);
          if (bf16_weights) {
            WeightSource source{half.data(), DType::bf16, n, k, nullptr};
            l.w = l.b->pack(std::span(&source, 1));
          }
          Rows bare(in.cu);
          Tensor x = l.put(in.x, t, k), dy = l.put(in.dy, t, n), y = l.arena->tensor(t, n), dx = l.arena->tensor(t, k);
          Tensor u = l.arena->tensor(t, rank), du = l.arena->tensor(t, rank);
          auto set = l.set();
          std::vector<LoraGradient*> sinks;
          for (auto& g : l.gradients) sinks.push_back(&g);
          auto median = [&](auto body) {
            body();
            std::vector<double> times;
            for (int64_t i = 0; i < runs; i++) {
              double start = now();
              body();
              times.push_back(now() - start);
            }
            std::sort(times.begin(), times.end());
            return times[times.size() / 2];
          };
          // Verified first: sampled outputs equal the scalar chain, bit for bit.
          l.b->linear(y, u, x, *l.w, set, l.rows);
          for (int64_t i = 0; i < 500; i++) {
            auto row = int64_t(uniform({7, 2}, uint64_t(2 * i)) * double(t)), column = int64_t(uniform({7, 2}, uint64_t(2 * i + 1)) * double(n));
            auto v = size_t(in.adapter[size_t(row)]);
            float chain = 0;
            for (int64_t c = 0; c < k; c++)
              chain = std::fma(in.x[size_t(row * k + c)], bf16_weights ? bf16_to_float(half[size_t(column * k + c)]) : in.w[size_t(column * k + c)], chain);
            for (int64_t j = 0; j < rank; j++) {
              float uj = 0;
              for (int64_t c = 0; c < k; c++) uj = std::fma(in.x[size_t(row * k + c)], in.a[v][size_t(j * k + c)], uj);
              chain = std::fma(uj * in.scale[v], in.bt[v][size_t(j * n + column)], chain);
            }
            float got;
            l.b->read(&got, y.row_range(row, 1).col_range(column, 1));
            out->wrong += got != chain;
          }
          // Interleaved, so that a slow moment of the machine hits all of them.
          for (int round = 0; round < 3; round++) {
            auto best = [&](double& kept, double value) { kept = kept == 0 ? value : std::min(kept, value); };
            best(out->plain, median([&] { l.b->linear(y, {}, x, *l.w, {}, bare); }));
            best(out->forward, median([&] { l.b->linear(y, u, x, *l.w, set, l.rows); }));
            best(out->both, median([&] {
                   l.b->linear(y, u, x, *l.w, set, l.rows);
                   l.b->linear_backward(dx, du, dy, *l.w, set, l.rows, false);
                   l.b->lora_gradient(sinks, u, du, x, dy, *l.w, set, l.rows);
                 }));
            best(out->backward_plain, median([&] { l.b->linear_backward(dx, {}, dy, *l.w, {}, bare, false); }));
          }
        },
        [out](Napi::Env env) -> Napi::Value {
          auto o = Napi::Object::New(env);
          o.Set("plain", out->plain);
          o.Set("forward", out->forward);
          o.Set("forwardBackward", out->both);
          o.Set("plainBackward", out->backward_plain);
          o.Set("wrong", double(out->wrong));
          return o;
        });
  });
}

}  // namespace

void register_kernels(Napi::Env env, Napi::Object exports) {
  exports.Set("adamwStep", Napi::Function::New(env, adamw_step, "adamwStep"));
  exports.Set("loraLinearForward", Napi::Function::New(env, lora_forward, "loraLinearForward"));
  exports.Set("loraLinearBackward", Napi::Function::New(env, lora_backward, "loraLinearBackward"));
  exports.Set("measureMachine", Napi::Function::New(env, measure_machine, "measureMachine"));
  exports.Set("measureLinear", Napi::Function::New(env, measure_linear, "measureLinear"));
}

}  // namespace rolegrad::bindings
