#include "bindings/routed_linear.h"

#include <algorithm>
#include <map>
#include <set>

#include "core/error.h"
#include "ops/cpu/cpu_backend.h"

namespace rolegrad::bindings {

std::shared_ptr<Backend> backend_named(const std::string& device, Precision precision) {
  // Never destroyed: the stream's thread may use one when static destructors run.
  static auto& kept = *new std::map<std::pair<std::string, Precision>, std::shared_ptr<Backend>>;
  static const auto& known = *new std::set<std::string>{"cpu", "cpu-reference", "avx2", "avx512", "neon"};
  if (known.count(device) == 0)
    throw Error("ERR_DEVICE",
                "Expected device cpu, cpu-reference, avx2, avx512 or neon but received \"" + device + "\"");
  auto& backend = kept[{device, precision}];
  if (!backend)
    backend = device == "cpu-reference" ? make_reference_backend(precision)
              : device == "cpu"         ? make_cpu_backend(precision)
                                        : make_cpu_backend(device);
  return backend;
}

Precision precision_argument(const Napi::Value& value, const std::string& name) {
  const std::string precision = string_argument(value, name);
  if (precision == "bf16-multiply") return Precision::bf16_multiply;
  if (precision != "exact") expected("\"exact\" or \"bf16-multiply\"", name, value);
  return Precision::exact;
}

RoutedLinear::RoutedLinear(const LinearArguments& in)
    : b(backend_named(in.device, in.precision)),
      arena(std::make_unique<Arena>(*b)),
      rows(in.cu, in.adapter, int(in.a.size())) {
  WeightSource source{in.w.data(), DType::f32, in.n, in.k, in.bias.empty() ? nullptr : in.bias.data()};
  w = b->pack(std::span(&source, 1));
  for (size_t v = 0; v < in.a.size(); v++) {
    LoraGroup g;
    int64_t r = int64_t(in.a[v].size()) / in.k;
    g.add(int(r), in.scale[v]);
    g.a = put(in.a[v], r, in.k);
    g.bt = {put(in.bt[v], r, in.n)};
    g.at = arena->tensor(in.k, r);
    g.b = {arena->tensor(in.n, r)};
    b->refresh_lora(g);
    groups.push_back(std::move(g));
    auto sum = [&](int64_t rows, int64_t cols) {
      sums.push_back(b->allocate(size_t(rows * cols) * sizeof(double)));
      return GradTensor{static_cast<double*>(sums.back()->data()), rows, cols, cols};
    };
    GradTensor a = sum(r, in.k), bt = sum(r, in.n);
    gradients.push_back({a, {bt}});
  }
}

std::vector<const LoraGroup*> RoutedLinear::set() const {
  std::vector<const LoraGroup*> set;
  for (const auto& g : groups) set.push_back(&g);
  return set;
}

std::vector<LoraGradient*> RoutedLinear::sinks() {
  std::vector<LoraGradient*> sinks;
  for (auto& g : gradients) sinks.push_back(&g);
  return sinks;
}

Tensor RoutedLinear::put(std::span<const float> values, int64_t rows, int64_t cols) {
  Tensor t = arena->tensor(rows, cols);
  b->write(t, values.data());
  return t;
}

int64_t RoutedLinear::widest() const {
  int64_t r = 1;
  for (const auto& g : groups) r = std::max<int64_t>(r, g.columns());
  return r;
}

}  // namespace rolegrad::bindings
