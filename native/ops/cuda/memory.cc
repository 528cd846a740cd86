// Memory, copies, weights and pages on the device.
#include "core/checked.h"
#include "core/error.h"
#include "ops/cuda/cuda_backend.h"

namespace rolegrad {

std::unique_ptr<Backend> make_cuda_backend(const std::string& library, Precision precision) {
  if (precision != Precision::exact)
    throw Error("ERR_PRECISION", "Expected precision \"exact\" on device \"cuda\" but received \"bf16-multiply\"");
  return std::make_unique<cuda::CudaBackend>(library);
}

namespace cuda {

namespace {

constexpr size_t kAlign = 256;
size_t align_up(size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

/// Lists that are kept on the device: those of a step and of a few before it.
constexpr size_t kUploads = 48;

}  // namespace

const void* CudaBackend::uploaded(const void* from, size_t bytes) {
  if (bytes == 0) return nullptr;
  for (auto it = uploads_.begin(); it != uploads_.end(); ++it)
    if (it->host.size() == bytes && std::memcmp(it->host.data(), from, bytes) == 0) {
      uploads_.splice(uploads_.begin(), uploads_, it);
      return it->memory->data();
    }
  // The oldest one's memory is written again in the stream's order: after all that reads what is there now.
  if (uploads_.size() >= kUploads) {
    uploads_.splice(uploads_.begin(), uploads_, std::prev(uploads_.end()));
    uploads_.front().host.clear();
  } else {
    uploads_.emplace_front();
  }
  Upload& upload = uploads_.front();
  if (!upload.memory || upload.memory->bytes() < bytes)
    upload.memory = std::make_unique<DeviceMemory>(device_, align_up(bytes + bytes / 4));
  call(&Table::upload, upload.memory->data(), bytes, from, bytes, bytes, size_t(1));
  const auto* begin = static_cast<const unsigned char*>(from);
  upload.host.assign(begin, begin + bytes);
  return upload.memory->data();
}

void* CudaBackend::workspace(Purpose purpose, size_t bytes) {
  auto& memory = workspaces_[size_t(purpose)];
  if (!memory || memory->bytes() < bytes) {
    memory.reset();
    memory = std::make_unique<DeviceMemory>(device_, align_up(bytes + bytes / 4));
  }
  return memory->data();
}

Tensor CudaBackend::work_tensor(Purpose purpose, int64_t rows, int64_t cols) {
  const size_t bytes = checked_bytes({rows, cols, sizeof(float)});
  return {static_cast<float*>(workspace(purpose, bytes)), rows, cols, cols};
}

rolegrad_cuda_group CudaBackend::group(const Rows::Group& group) {
  return {list(group.rows), list(group.cuts), int64_t(group.cuts.size()) - 1};
}

std::unique_ptr<Memory> CudaBackend::allocate(size_t bytes) { return std::make_unique<DeviceMemory>(device_, bytes); }

double CudaBackend::read_scalar(const double* scalar) {
  double value = 0;
  call(&Table::download, &value, sizeof value, scalar, sizeof value, sizeof value, size_t(1));
  return value;
}

void CudaBackend::write(const Tensor& to, const float* from) {
  call(&Table::upload, to.data, size_t(to.ld) * 4, from, size_t(to.cols) * 4, size_t(to.cols) * 4, size_t(to.rows));
}
void CudaBackend::read(float* to, const Tensor& from) {
  call(&Table::download, to, size_t(from.cols) * 4, from.data, size_t(from.ld) * 4, size_t(from.cols) * 4,
       size_t(from.rows));
}
void CudaBackend::write(const GradTensor& to, const double* from) {
  call(&Table::upload, to.data, size_t(to.ld) * 8, from, size_t(to.cols) * 8, size_t(to.cols) * 8, size_t(to.rows));
}
void CudaBackend::read(double* to, const GradTensor& from) {
  call(&Table::download, to, size_t(from.cols) * 8, from.data, size_t(from.ld) * 8, size_t(from.cols) * 8,
       size_t(from.rows));
}
void CudaBackend::zero(const Tensor& x) {
  call(&Table::clear, x.data, size_t(x.ld) * 4, size_t(x.cols) * 4, size_t(x.rows));
}
void CudaBackend::zero(const GradTensor& x) {
  call(&Table::clear, x.data, size_t(x.ld) * 8, size_t(x.cols) * 8, size_t(x.rows));
}
void CudaBackend::copy(const Tensor& to, const Tensor& from) {
  call(&Table::copy, to.data, size_t(to.ld) * 4, from.data, size_t(from.ld) * 4, size_t(to.cols) * 4, size_t(to.rows));
}
void CudaBackend::round(const Tensor& to, const GradTensor& from) {
  call(&Table::round_gradient, matrix(to), matrix(from));
}

// ---- weights

Weight::Weight(const std::shared_ptr<const Device>& device, std::span<const WeightSource> modules) {
  if (modules.empty()) throw Error("ERR_SHAPE", "Expected at least one weight to pack but received none");
  k_ = modules[0].k;
  dtype_ = modules[0].dtype;
  for (const WeightSource& source : modules) {
    if (source.k != k_ || source.dtype != dtype_)
      throw Error("ERR_SHAPE", "Expected weights that read the same input to have the same width and type");
    column_.push_back(column_.back() + source.n);
    has_bias_ = has_bias_ || source.bias;
  }
  bias_offset_ = align_up(checked_bytes({n(), k_, int64_t(element())}));
  columns_offset_ = align_up(bias_offset_ + size_t(n()) * sizeof(float));
  memory_ = std::make_unique<DeviceMemory>(device, columns_offset_ + column_.size() * sizeof(int64_t));
  auto upload = [&](void* to, const void* from, size_t bytes) {
    if (bytes > 0) device->call(&Table::upload, to, bytes, from, bytes, bytes, size_t(1));
  };
  for (size_t m = 0; m < modules.size(); m++) {
    const int64_t first = column_[m];
    upload(static_cast<char*>(memory_->data()) + size_t(first * k_) * element(), modules[m].w,
           size_t(modules[m].n * k_) * element());
    if (modules[m].bias) upload(bias() + first, modules[m].bias, size_t(modules[m].n) * sizeof(float));
  }
  upload(static_cast<char*>(memory_->data()) + columns_offset_, column_.data(), column_.size() * sizeof(int64_t));
}

rolegrad_cuda_weight Weight::rows(int64_t first, int64_t count) const {
  return {static_cast<char*>(memory_->data()) + size_t(first * k_) * element(), is_bf16(), count, k_};
}

float* Weight::bias() const { return reinterpret_cast<float*>(static_cast<char*>(memory_->data()) + bias_offset_); }

const int64_t* Weight::columns() const {
  return reinterpret_cast<const int64_t*>(static_cast<const char*>(memory_->data()) + columns_offset_);
}

int64_t Weight::widest() const {
  int64_t most = 0;
  for (int m = 0; m < modules(); m++) most = std::max(most, n(m));
  return most;
}

std::unique_ptr<PackedWeight> CudaBackend::pack(std::span<const WeightSource> modules) {
  return std::make_unique<Weight>(device_, modules);
}

void CudaBackend::repack(PackedWeight& packed, int m, const Tensor& values, const Tensor* bias) {
  const auto& w = static_cast<const Weight&>(packed);
  if (w.is_bf16()) throw Error("ERR_DTYPE", "Expected f32 weights for full training but received bf16");
  float* to = const_cast<float*>(static_cast<const float*>(w.rows(w.column(m), w.n(m)).w));
  copy({to, w.n(m), w.k(), w.k()}, values);
  if (bias && w.has_bias()) copy({w.bias() + w.column(m), 1, w.n(m), w.n(m)}, *bias);
}

void CudaBackend::refresh_lora(const LoraGroup& group) {
  if (group.columns() == 0) return;
  call(&Table::transpose, matrix(group.at), matrix(group.a));
  for (size_t m = 0; m < group.modules.size(); m++)
    if (group.modules[m].rank > 0) call(&Table::transpose, matrix(group.b[m]), matrix(group.bt[m]));
}

// ---- pages

Pages::Pages(const std::shared_ptr<const Device>& device, int layers, const AttentionShape& shape, int64_t pages)
    : layers_(layers),
      pages_(pages),
      page_bytes_(checked_bytes({kPage, shape.kv_heads, shape.head_dim, sizeof(float)})),
      memory_(std::make_unique<DeviceMemory>(device, checked_bytes({layers, pages, int64_t(page_bytes_), 2}))) {}

char* Pages::page(bool values, int layer, int64_t page) const {
  return static_cast<char*>(memory_->data()) + ((int64_t(values) * layers_ + layer) * pages_ + page) * page_bytes_;
}

rolegrad_cuda_cache Pages::cache(const AttentionShape& shape) const {
  return {reinterpret_cast<float*>(page(false, 0, 0)),
          reinterpret_cast<float*>(page(true, 0, 0)),
          pages_,
          shape.heads,
          shape.kv_heads,
          shape.head_dim,
          shape.scale};
}

std::unique_ptr<KvPages> CudaBackend::kv_pages(int layers, const AttentionShape& shape, int64_t pages) {
  constexpr int kMostHeadDim = 512;  // of the kernels (cuda/kernels/cache.h)
  if (shape.head_dim > kMostHeadDim)
    throw Error("ERR_MODEL_UNSUPPORTED", "Expected heads of at most " + std::to_string(kMostHeadDim) +
                                             " numbers on device \"cuda\" but received " +
                                             std::to_string(shape.head_dim));
  return std::make_unique<Pages>(device_, layers, shape, pages);
}

void CudaBackend::kv_copy_page(KvPages& pages, int32_t to, int32_t from) {
  const auto& kv = static_cast<const Pages&>(pages);
  const size_t bytes = kv.page_bytes(), pitch = bytes * size_t(kv.pages());
  // Layers and the halves (keys, values) are evenly apart: one copy.
  call(&Table::copy, kv.page(false, 0, to), pitch, kv.page(false, 0, from), pitch, bytes, size_t(kv.layers()) * 2);
}

}  // namespace cuda
}  // namespace rolegrad
