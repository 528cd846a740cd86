#include "core/error.h"
#include "ops/ref/ref_backend.h"

namespace rolegrad::ref {

Weight::Weight(std::span<const WeightSource> modules, Precision precision_) : precision(precision_) {
  if (modules.empty()) throw Error("ERR_SHAPE", "Expected at least one weight to pack but received none");
  k_ = modules[0].k;
  const DType stored = modules[0].dtype;
  dtype_ = precision == Precision::exact ? stored : DType::bf16;
  for (const WeightSource& source : modules) {
    if (source.k != k_ || source.dtype != stored)
      throw Error("ERR_SHAPE", "Expected weights that read the same input to have the same width and type");
    column_.push_back(column_.back() + source.n);
    for (int64_t i = 0; i < source.n * source.k; i++)
      w.push_back(stored == DType::bf16 ? bf16_to_float(static_cast<const bf16*>(source.w)[i])
                                        : static_cast<const float*>(source.w)[i]);
    for (int64_t i = 0; i < source.n; i++) bias.push_back(source.bias ? source.bias[i] : 0.0f);
  }
  if (precision == Precision::bf16_multiply)
    for (float& value : w) value = bf16_to_float(float_to_bf16(value));
}

std::unique_ptr<PackedWeight> RefBackend::pack(std::span<const WeightSource> modules) {
  return std::make_unique<Weight>(modules, precision_);
}

void RefBackend::repack(PackedWeight& packed, int m, const Tensor& values, const Tensor* bias) {
  auto& weight = static_cast<Weight&>(packed);
  if (weight.dtype() != DType::f32 && precision_ == Precision::exact)
    throw Error("ERR_DTYPE", "Expected f32 weights for full training but received bf16");
  for (int64_t n = 0; n < weight.n(m); n++) {
    int64_t row = weight.column(m) + n;
    for (int64_t k = 0; k < weight.k(); k++) {
      float value = at(values, n, k);
      if (precision_ == Precision::bf16_multiply) value = bf16_to_float(float_to_bf16(value));
      weight.w[size_t(row * weight.k() + k)] = value;
    }
    if (bias) weight.bias[size_t(row)] = at(*bias, 0, n);
  }
}

void RefBackend::refresh_lora(const LoraGroup& group) {
  for (int64_t i = 0; i < group.columns(); i++)
    for (int64_t k = 0; k < group.a.cols; k++) at(group.at, k, i) = at(group.a, i, k);
  for (size_t m = 0; m < group.modules.size(); m++)
    for (int64_t i = 0; i < group.modules[m].rank; i++)
      for (int64_t n = 0; n < group.bt[m].cols; n++) at(group.b[m], n, i) = at(group.bt[m], i, n);
}

}  // namespace rolegrad::ref
