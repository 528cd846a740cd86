#pragma once

#include <array>
#include <cstring>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ops/backend.h"
#include "ops/cuda/device.h"

namespace rolegrad::cuda {

/// w [n, k] of all modules one below the other as stored (f32 or bf16), and a bias of zeros where a module has none.
class Weight final : public PackedWeight {
 public:
  Weight(const std::shared_ptr<const Device>& device, std::span<const WeightSource> modules);
  size_t bytes() const override { return memory_->bytes(); }
  rolegrad_cuda_weight all() const { return {memory_->data(), is_bf16(), n(), k_}; }
  /// Rows [first, first + count).
  rolegrad_cuda_weight rows(int64_t first, int64_t count) const;
  float* bias() const;
  bool has_bias() const { return has_bias_; }
  /// Where each module begins, and where the last one ends, in the device's memory.
  const int64_t* columns() const;
  int64_t widest() const;
  bool is_bf16() const { return dtype_ == DType::bf16; }

 private:
  size_t element() const { return is_bf16() ? 2 : 4; }

  std::unique_ptr<DeviceMemory> memory_;  // w, then bias, then columns
  size_t bias_offset_ = 0, columns_offset_ = 0;
  bool has_bias_ = false;
};

class Pages final : public KvPages {
 public:
  Pages(const std::shared_ptr<const Device>& device, int layers, const AttentionShape& shape, int64_t pages);
  int layers() const override { return layers_; }
  int64_t pages() const override { return pages_; }
  size_t bytes() const override { return memory_->bytes(); }
  rolegrad_cuda_cache cache(const AttentionShape& shape) const;
  /// Bytes of one page of one layer, of keys or of values.
  size_t page_bytes() const { return page_bytes_; }
  char* page(bool values, int layer, int64_t page) const;

 private:
  int layers_;
  int64_t pages_;
  size_t page_bytes_;
  std::unique_ptr<DeviceMemory> memory_;  // keys, then values
};

/// The operations over the table of the CUDA library. What the host decides (which rows, which adapters) is uploaded;
/// the same list is uploaded once however many operations read it.
class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const std::string& library) : device_(std::make_shared<Device>(library)) {}
  std::string name() const override { return device_->name(); }
  const Device& device() const { return *device_; }

  int64_t leading_dimension(int64_t cols) const override { return (cols + 31) / 32 * 32; }
  double read_scalar(const double* scalar) override;

#define ROLEGRAD_OPERATION(...) __VA_ARGS__ override
#include "ops/operations.inl"
#undef ROLEGRAD_OPERATION

 private:
  template <class... P, class... A>
  void call(int32_t (*Table::*function)(rolegrad_cuda_context*, P...), A... arguments) const {
    device_->call(function, arguments...);
  }

  const void* uploaded(const void* from, size_t bytes);
  /// The list in the device's memory. Valid for this operation.
  template <class T>
  const T* list(std::span<const T> values) {
    return static_cast<const T*>(uploaded(values.data(), values.size_bytes()));
  }
  template <class T>
  const T* list(const std::vector<T>& values) {
    return list(std::span<const T>(values));
  }
  const int32_t* adapters(const Rows& rows) { return list(rows.adapter()); }
  rolegrad_cuda_group group(const Rows::Group& group);

  /// Memory for the time of an operation, one block for each purpose, kept between calls.
  enum class Purpose { inverse, delta, partial, logits, stats, totals, targets, drawn, count };
  void* workspace(Purpose purpose, size_t bytes);
  Tensor work_tensor(Purpose purpose, int64_t rows, int64_t cols);

  rolegrad_cuda_sequences sequences(std::span<const SequenceSpan> spans, int64_t rows);
  /// out by projections [adapters, modules].
  void project(const Tensor& out, const Tensor& x, const std::vector<rolegrad_cuda_projection>& projections,
               int64_t modules, const Rows& rows);
  void outer(const GradTensor& out, rolegrad_cuda_outer o);
  /// dx = du a, to which a product with the weight may be added.
  rolegrad_cuda_product input_gradient(const Tensor& dx, const Tensor& du, LoraSet lora, const Rows& rows);
  void rmsnorm_gradient(const Tensor& dx, const GradTensor* dw, const Tensor& dy, const Tensor& x, const Tensor& w,
                        float eps, const Rows::Group& group, bool accumulate);

  /// Logits of the words [first, first + n) for all rows of h.
  void head_chunk(const Tensor& to, const Tensor& h, const Weight& head, int64_t first, const LogitColumns& replaced);
  /// to (+)= dl times the words [first, ...) of the head.
  void head_rows_product(const Tensor& to, const Tensor& dl, const Weight& head, int64_t first, bool accumulate);
  struct HeadGradient;
  void head_gradient(const HeadGradient& g);

  struct Upload {
    std::vector<unsigned char> host;
    std::unique_ptr<DeviceMemory> memory;
  };

  std::shared_ptr<const Device> device_;
  std::list<Upload> uploads_;  // the one used last in front
  std::array<std::unique_ptr<DeviceMemory>, size_t(Purpose::count)> workspaces_;
};

inline rolegrad_cuda_matrix matrix(const Tensor& x) { return {x.data, x.rows, x.cols, x.ld}; }
inline rolegrad_cuda_gradient matrix(const GradTensor& x) { return {x.data, x.rows, x.cols, x.ld}; }

}  // namespace rolegrad::cuda
