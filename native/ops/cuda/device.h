#pragma once

#include <memory>
#include <string>

#include "core/abort.h"
#include "cuda/table.h"
#include "ops/backend.h"

namespace rolegrad::cuda {

using Table = rolegrad_cuda_table;

/// The CUDA library, opened with dlopen for as long as the process lives, and a device with its stream. Nothing else of
/// the addon knows that there is such a library.
class Device {
 public:
  /// ERR_CUDA_UNAVAILABLE where the library cannot be opened, is of another version, or finds no device to run on: the
  /// message says what was found and what is needed.
  explicit Device(const std::string& library);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  /// "cuda", or "cuda-emulated" of the twin that tests open.
  std::string name() const { return table_->name; }
  const rolegrad_cuda_found& found() const { return found_; }

  /// Calls a function of the table; its failure is thrown as ERR_OUT_OF_MEMORY or ERR_CUDA.
  template <class... P, class... A>
  void call(int32_t (*Table::*function)(rolegrad_cuda_context*, P...), A... arguments) const {
    check_aborted();
    check((table_->*function)(context_, P(arguments)...));
  }
  void release(void* data) const noexcept { table_->release(context_, data); }

 private:
  void check(int32_t result) const {
    if (result != ROLEGRAD_CUDA_OK) fail(result);
  }
  [[noreturn]] void fail(int32_t result) const;

  const Table* table_ = nullptr;
  rolegrad_cuda_context* context_ = nullptr;
  rolegrad_cuda_found found_{};
};

/// Memory of a device, which it keeps open.
class DeviceMemory final : public Memory {
 public:
  DeviceMemory(std::shared_ptr<const Device> device, size_t bytes);
  ~DeviceMemory() override;
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  void* data() const override { return data_; }
  size_t bytes() const override { return bytes_; }

 private:
  std::shared_ptr<const Device> device_;
  void* data_ = nullptr;
  size_t bytes_;
};

}  // namespace rolegrad::cuda
