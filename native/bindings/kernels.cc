// Operations on plain typed arrays: the optimizer and one routed linear.

#include "bindings/engine.h"
#include "bindings/routed_linear.h"

namespace rolegrad::bindings {
namespace {

/// adamwStep(parameters, gradients, first, second, { learningRate, beta1, beta2, epsilon, weightDecay, maxGradNorm,
/// step, sumOfSquares })
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
    s = adamw_argument(o);
    s.step = uint64_t(integer_argument(o.Get("step"), "step", 1, int64_t(1) << 50));
    job->sum = number_argument(o.Get("sumOfSquares"), "sumOfSquares");
    return run_async(
        env,
        [job](const std::atomic<bool>&) {
          int64_t n = int64_t(job->p.size());
          auto backend = backend_named("cpu");
          backend->adamw({job->p.data(), 1, n, n}, {job->g.data(), 1, n, n}, {job->m.data(), 1, n, n},
                         {job->v.data(), 1, n, n}, job->step, &job->sum);
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
  if (in->x.empty() || in->x.size() % size_t(in->t))
    throw Error("ERR_SHAPE", "Expected x [T, K] for T = " + std::to_string(in->t) + " roles");
  in->k = int64_t(in->x.size()) / in->t;
  if (in->w.empty() || in->w.size() % size_t(in->k))
    throw Error("ERR_SHAPE", "Expected w [N, K] for K = " + std::to_string(in->k));
  in->n = int64_t(in->w.size()) / in->k;
  if (!in->bias.empty() && int64_t(in->bias.size()) != in->n)
    throw Error("ERR_SHAPE", "Expected bias [N] for N = " + std::to_string(in->n));
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
      throw Error("ERR_ROLE_RANGE", "Expected roles from -1 to " + std::to_string(int64_t(in->a.size()) - 1) +
                                        " but roles[" + std::to_string(t) + "] is " + std::to_string(in->adapter[t]));
  if (backward) {
    in->dy = copy_argument<float>(o.Get("dy"), "dy");
    if (int64_t(in->dy.size()) != in->t * in->n) throw Error("ERR_SHAPE", "Expected dy [T, N]");
  }
  return in;
}

std::vector<float> dense(Backend& b, const Tensor& t) {
  std::vector<float> values(size_t(t.rows * t.cols));
  b.read(values.data(), t);
  return values;
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
          RoutedLinear l(*in);
          Tensor x = l.put(in->x, in->t, in->k), out = l.arena->tensor(in->t, in->n),
                 u = l.arena->tensor(in->t, l.widest());
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
          RoutedLinear l(*in);
          Tensor x = l.put(in->x, in->t, in->k), dy = l.put(in->dy, in->t, in->n), y = l.arena->tensor(in->t, in->n);
          Tensor u = l.arena->tensor(in->t, l.widest()), du = l.arena->tensor(in->t, l.widest()),
                 dx = l.arena->tensor(in->t, in->k);
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
              for (int64_t n = 0; n < g.bt[0].cols; n++)
                b[size_t(n * g.bt[0].rows + j)] = float(bt[size_t(j * g.bt[0].cols + n)]);
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

}  // namespace

void register_kernels(Napi::Env env, Napi::Object exports) {
  exports.Set("adamwStep", Napi::Function::New(env, adamw_step, "adamwStep"));
  exports.Set("loraLinearForward", Napi::Function::New(env, lora_forward, "loraLinearForward"));
  exports.Set("loraLinearBackward", Napi::Function::New(env, lora_backward, "loraLinearBackward"));
}

}  // namespace rolegrad::bindings
