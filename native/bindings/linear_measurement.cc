// The class NativeLinearMeasurement: one routed linear that is checked against scalar chains and then timed.

#include <algorithm>
#include <chrono>
#include <cmath>

#include "bindings/engine.h"
#include "bindings/routed_linear.h"

namespace rolegrad::bindings {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void poll(const std::atomic<bool>& stop) {
  if (stop.load()) throw Error("ERR_ABORTED", "The measurement was aborted");
}

struct LinearOptions {
  int64_t t, k, n, span, rank, roles;
  bool bf16_weights;
  Precision precision;
};

/// Elements that the engine computed, and what a scalar chain of FMAs in the documented order gives for each.
struct Sample {
  const char* name;
  std::vector<double> got, expected;
};

enum class What { plain, forward, plain_backward, forward_backward };

/// The tensors of one linear: random x, dy, w and pairs; roles alternate in spans of rows.
struct MeasuredLinear {
  explicit MeasuredLinear(const LinearOptions& options);
  std::vector<Sample> verify(const std::atomic<bool>& stop);
  std::vector<double> time(What what, int64_t runs, double least, const std::atomic<bool>& stop);

 private:
  void run(What what);
  float weight(int64_t n, int64_t k) const;

  LinearOptions o_;
  LinearArguments in_;
  std::unique_ptr<RoutedLinear> l_;
  std::vector<const LoraGroup*> set_;
  Rows bare_;
  Tensor x_, y_, dx_, dy_, u_, du_;
  // Calls take turns on copies of the weight, enough of them that a weight read once a call comes from memory and not
  // from a cache.
  std::vector<std::unique_ptr<PackedWeight>> copies_;
  size_t turn_ = 0;
};

MeasuredLinear::MeasuredLinear(const LinearOptions& options) : o_(options) {
  const auto& o = o_;
  in_.device = "cpu";
  in_.precision = o.precision;
  in_.t = o.t, in_.k = o.k, in_.n = o.n;
  uint64_t position = 0;
  auto fill = [&](std::vector<float>& x, int64_t count) {
    x.resize(size_t(count));
    for (auto& v : x) v = float(uniform({7, 1}, position++) - 0.5);
  };
  fill(in_.x, o.t * o.k);
  fill(in_.w, o.n * o.k);
  fill(in_.dy, o.t * o.n);
  for (int64_t v = 0; v < o.roles; v++) {
    in_.a.emplace_back();
    in_.bt.emplace_back();
    fill(in_.a.back(), o.rank * o.k);
    fill(in_.bt.back(), o.rank * o.n);
    in_.scale.push_back(2);
  }
  for (int64_t i = 0; i < o.t; i++) in_.adapter.push_back(int32_t(i / o.span % o.roles));
  in_.cu = {0, int32_t(o.t)};
  std::vector<bf16> half;
  if (o.bf16_weights) {
    half.resize(in_.w.size());
    for (size_t i = 0; i < half.size(); i++) {
      half[i] = float_to_bf16(in_.w[i]);
      in_.w[i] = bf16_to_float(half[i]);
    }
  }
  l_ = std::make_unique<RoutedLinear>(in_);
  WeightSource source{in_.w.data(), DType::f32, o.n, o.k, nullptr};
  if (o.bf16_weights) source = {half.data(), DType::bf16, o.n, o.k, nullptr};
  // Below 16 rows a weight's bytes cost more than its arithmetic: 256 MiB of copies is beyond the caches.
  size_t bytes = in_.w.size() * (o.bf16_weights || o.precision != Precision::exact ? 2 : 4);
  size_t copies = o.t < 16 ? (size_t(256) << 20) / bytes + 1 : 1;
  for (size_t i = 0; i < copies; i++) copies_.push_back(l_->b->pack(std::span(&source, 1)));
  l_->w.reset();
  set_ = l_->set();
  bare_ = Rows(in_.cu);
  x_ = l_->put(in_.x, o.t, o.k);
  dy_ = l_->put(in_.dy, o.t, o.n);
  y_ = l_->arena->tensor(o.t, o.n);
  dx_ = l_->arena->tensor(o.t, o.k);
  u_ = l_->arena->tensor(o.t, o.rank);
  du_ = l_->arena->tensor(o.t, o.rank);
}

void MeasuredLinear::run(What what) {
  Backend& b = *l_->b;
  const PackedWeight& w = *copies_[turn_++ % copies_.size()];
  switch (what) {
    case What::plain:
      return b.linear(y_, {}, x_, w, {}, bare_);
    case What::forward:
      return b.linear(y_, u_, x_, w, set_, l_->rows);
    case What::plain_backward:
      return b.linear_backward(dx_, {}, dy_, w, {}, bare_, false);
    case What::forward_backward:
      b.linear(y_, u_, x_, w, set_, l_->rows);
      b.linear_backward(dx_, du_, dy_, w, set_, l_->rows, false);
      return b.lora_gradient(l_->sinks(), u_, du_, x_, dy_, w, set_, l_->rows);
  }
}

std::vector<Sample> MeasuredLinear::verify(const std::atomic<bool>& stop) {
  const auto& [t, k, n, span, rank, roles, half, precision] = o_;
  Backend& b = *l_->b;
  auto element = [&](const Tensor& x, int64_t row, int64_t column) {
    float value;
    b.read(&value, x.row_range(row, 1).col_range(column, 1));
    return value;
  };
  // Chains over the first index, steps apart: of p and q.
  auto chain = [](int64_t steps, const float* p, int64_t dp, const float* q, int64_t dq, float c = 0) {
    for (int64_t s = 0; s < steps; s++) c = std::fma(p[s * dp], q[s * dq], c);
    return c;
  };
  // The same of a product with the weight: the operands rounded first, in the bf16 multiply mode.
  auto product = [&](int64_t steps, const float* p, const float* q, int64_t dq) {
    auto operand = [&](float x) { return o_.precision == Precision::exact ? x : bf16_to_float(float_to_bf16(x)); };
    float c = 0;
    for (int64_t s = 0; s < steps; s++) c = std::fma(operand(p[s]), operand(q[s * dq]), c);
    return c;
  };
  uint64_t position = 0;
  auto pick = [&](int64_t below) { return int64_t(uniform({7, 2}, position++) * double(below)); };
  std::vector<Sample> samples;
  auto check = [&](const char* name, int64_t count, auto body) {
    Sample s{name, {}, {}};
    poll(stop);
    for (int64_t i = 0; i < count; i++) {
      auto [got, expected] = body();
      s.got.push_back(double(got));
      s.expected.push_back(double(expected));
    }
    samples.push_back(std::move(s));
  };
  using Pair = std::pair<double, double>;
  const float *xs = in_.x.data(), *ws = in_.w.data(), *dys = in_.dy.data();

  run(What::plain);
  check("x wT", 200, [&]() -> Pair {
    int64_t i = pick(t), j = pick(n);
    return {element(y_, i, j), product(k, xs + i * k, ws + j * k, 1)};
  });
  run(What::plain_backward);
  check("dy w", 200, [&]() -> Pair {
    int64_t i = pick(t), j = pick(k);
    return {element(dx_, i, j), product(n, dys + i * n, ws + j, k)};
  });
  run(What::forward_backward);
  auto a = [&](int64_t row) { return in_.a[size_t(in_.adapter[size_t(row)])].data(); };
  auto bt = [&](int64_t row) { return in_.bt[size_t(in_.adapter[size_t(row)])].data(); };
  auto u = [&](int64_t row, int64_t j) { return chain(k, xs + row * k, 1, a(row) + j * k, 1) * 2; };
  auto du = [&](int64_t row, int64_t j) { return chain(n, dys + row * n, 1, bt(row) + j * n, 1) * 2; };
  std::vector<float> low(static_cast<size_t>(rank));
  check("x wT + u bT", 200, [&]() -> Pair {
    int64_t i = pick(t), c = pick(n);
    for (int64_t j = 0; j < rank; j++) low[size_t(j)] = u(i, j);
    return {element(y_, i, c), chain(rank, low.data(), 1, bt(i) + c, n, product(k, xs + i * k, ws + c * k, 1))};
  });
  check("dy w + du a", 200, [&]() -> Pair {
    int64_t i = pick(t), c = pick(k);
    for (int64_t j = 0; j < rank; j++) low[size_t(j)] = du(i, j);
    return {element(dx_, i, c), chain(rank, low.data(), 1, a(i) + c, k, product(n, dys + i * n, ws + c, k))};
  });
  check("u", 100, [&]() -> Pair {
    int64_t i = pick(t), j = pick(rank);
    return {element(u_, i, j), u(i, j)};
  });
  check("du", 100, [&]() -> Pair {
    int64_t i = pick(t), j = pick(rank);
    return {element(du_, i, j), du(i, j)};
  });
  // One sequence: the f64 sum of its single chain. u and du have been checked above.
  std::vector<float> us(size_t(t * rank)), dus(us.size());
  b.read(us.data(), u_);
  b.read(dus.data(), du_);
  auto gradient = [&](int64_t v, const float* p, const float* q, int64_t ldq) {
    float c = 0;
    for (int64_t row = 0; row < t; row++)
      if (in_.adapter[size_t(row)] == v) c = std::fma(p[row * rank], q[row * ldq], c);
    return c;
  };
  auto total = [&](const GradTensor& g, int64_t row, int64_t column) {
    double value;
    b.read(&value, {g.data + row * g.ld + column, 1, 1, g.ld});
    return value;
  };
  check("dA", 100, [&]() -> Pair {
    int64_t v = pick(roles), j = pick(rank), c = pick(k);
    return {total(l_->gradients[size_t(v)].a, j, c), gradient(v, dus.data() + j, xs + c, k)};
  });
  check("dB", 100, [&]() -> Pair {
    int64_t v = pick(roles), j = pick(rank), c = pick(n);
    return {total(l_->gradients[size_t(v)].bt[0], j, c), gradient(v, us.data() + j, dys + c, n)};
  });
  return samples;
}

std::vector<double> MeasuredLinear::time(What what, int64_t runs, double least, const std::atomic<bool>& stop) {
  auto seconds = [&](int64_t calls) {
    poll(stop);
    double start = now();
    for (int64_t i = 0; i < calls; i++) run(what);
    return (now() - start) / double(calls);
  };
  seconds(1);
  auto calls = std::clamp<int64_t>(int64_t(std::ceil(least / seconds(1))), 1, 10000);
  std::vector<double> times;
  for (int64_t i = 0; i < runs; i++) times.push_back(seconds(calls));
  return times;
}

What what_argument(const Napi::Value& value) {
  const std::string name = string_argument(value, "what");
  if (name == "plain") return What::plain;
  if (name == "forward") return What::forward;
  if (name == "plainBackward") return What::plain_backward;
  if (name == "forwardBackward") return What::forward_backward;
  expected("plain, forward, plainBackward or forwardBackward", "what", value);
}

class LinearMeasurementObject : public Napi::ObjectWrap<LinearMeasurementObject> {
 public:
  static constexpr const char* kName = "NativeLinearMeasurement";

  /// new NativeLinearMeasurement({ t, k, n, span, rank, roles, bf16, precision })
  explicit LinearMeasurementObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<LinearMeasurementObject>(info) {
    guard(info.Env(), [&] {
      auto o = object_argument(info[0], "options");
      auto integer = [&](const char* name) { return integer_argument(o.Get(name), name, 1); };
      state_ = std::make_shared<State>();
      state_->options = {integer("t"),
                         integer("k"),
                         integer("n"),
                         integer("span"),
                         integer("rank"),
                         integer("roles"),
                         boolean_argument(o.Get("bf16"), "bf16"),
                         precision_argument(o.Get("precision"), "precision")};
    });
  }

  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, kName,
                       {InstanceMethod("verify", &LinearMeasurementObject::verify),
                        InstanceMethod("time", &LinearMeasurementObject::time),
                        InstanceMethod("close", &LinearMeasurementObject::close)});
  }

 private:
  /// Made by the first job: hundreds of megabytes, which close() gives back without waiting for a garbage collection.
  struct State {
    LinearOptions options;
    std::unique_ptr<MeasuredLinear> linear;
    MeasuredLinear& get() {
      if (!linear) linear = std::make_unique<MeasuredLinear>(options);
      return *linear;
    }
  };

  /// verify() -> [{ name, got: Float64Array, expected: Float64Array }]
  Napi::Value verify(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    return guard(env, [&]() -> Napi::Value {
      auto samples = std::make_shared<std::vector<Sample>>();
      return run_async(
          env, [state = state(), samples](const std::atomic<bool>& stop) { *samples = state->get().verify(stop); },
          [samples](Napi::Env env) -> Napi::Value {
            auto list = Napi::Array::New(env);
            uint32_t i = 0;
            for (const auto& s : *samples) {
              auto item = Napi::Object::New(env);
              item.Set("name", s.name);
              item.Set("got", to_typed_array<double>(env, s.got));
              item.Set("expected", to_typed_array<double>(env, s.expected));
              list.Set(i++, item);
            }
            return list;
          });
    });
  }

  /// time(what, runs, least) -> Float64Array [runs] of seconds a call; a run repeats the call until it lasts `least`
  /// seconds.
  Napi::Value time(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    return guard(env, [&]() -> Napi::Value {
      What what = what_argument(info[0]);
      int64_t runs = integer_argument(info[1], "runs", 1, 10000);
      double least = number_argument(info[2], "least");
      auto times = std::make_shared<std::vector<double>>();
      return run_async(
          env,
          [=, state = state()](const std::atomic<bool>& stop) { *times = state->get().time(what, runs, least, stop); },
          [times](Napi::Env env) -> Napi::Value { return to_typed_array<double>(env, *times); });
    });
  }

  void close(const Napi::CallbackInfo&) { state_.reset(); }

  std::shared_ptr<State> state() const {
    if (!state_) throw Error("ERR_CLOSED", "Expected an open measurement but it was closed");
    return state_;
  }

  std::shared_ptr<State> state_;
};

}  // namespace

void register_linear_measurement(Napi::Env env, Napi::Object exports) {
  exports.Set("LinearMeasurement", LinearMeasurementObject::define(env));
}

}  // namespace rolegrad::bindings
