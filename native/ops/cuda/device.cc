#include "ops/cuda/device.h"

#include "core/error.h"

#if defined(__linux__)
#include <dlfcn.h>
#endif

namespace rolegrad::cuda {

namespace {

// Of the library that this package is built with: CUDA 13.
constexpr const char* kNeeded =
    "device \"cuda\" needs Linux on x86-64, an NVIDIA GPU of compute capability 8.0 or newer (A100, H100, RTX 30 and "
    "later), and its driver 580 or newer (CUDA 13; 525 for a library of CUDA 12)";

[[noreturn]] void unavailable(const std::string& found) {
  throw Error("ERR_CUDA_UNAVAILABLE", "Expected a GPU but found " + found + ": " + kNeeded);
}

std::string version_text(int32_t version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string device_text(const rolegrad_cuda_found& found) {
  std::string text = found.driver > 0 ? "a driver for CUDA " + version_text(found.driver) : "no NVIDIA driver";
  if (found.runtime > 0) text += ", a library of CUDA " + version_text(found.runtime);
  if (found.devices == 0) return text + ", no device";
  text += ", " + std::string(found.name) + " of compute capability " + std::to_string(found.major) + "." +
          std::to_string(found.minor);
  if (found.memory_bytes > 0) text += " with " + std::to_string(found.memory_bytes >> 20) + " MiB";
  return text;
}

const Table* open_library(const std::string& path) {
#if defined(__linux__)
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);  // never closed: CUDA does not like to be unloaded
  if (!handle) {
    const char* why = dlerror();
    unavailable("no library that opens (" + std::string(why ? why : path) + ")");
  }
  auto function = reinterpret_cast<rolegrad_cuda_library_function>(dlsym(handle, ROLEGRAD_CUDA_SYMBOL));
  if (!function) unavailable("a library without " ROLEGRAD_CUDA_SYMBOL ", " + path);
  const Table* table = function();
  if (table->version != ROLEGRAD_CUDA_TABLE_VERSION || table->size != sizeof(Table))
    unavailable("a library of another version (" + path + " has interface " + std::to_string(table->version) + " of " +
                std::to_string(table->size) + " bytes, this package " + std::to_string(ROLEGRAD_CUDA_TABLE_VERSION) +
                " of " + std::to_string(sizeof(Table)) + "; install the same version of both)");
  return table;
#else
  unavailable("another system, and no use for " + path);
#endif
}

}  // namespace

Device::Device(const std::string& library) {
  if (library.empty())
    unavailable("no library (the package @rolegrad/cuda-linux-x64 is not installed: npm i @rolegrad/cuda-linux-x64)");
  table_ = open_library(library);
  if (const int32_t result = table_->open(&context_, &found_); result != ROLEGRAD_CUDA_OK)
    unavailable(device_text(found_) + " (" + table_->message(nullptr) + ")");
}

Device::~Device() {
  if (context_) table_->close(context_);
}

void Device::fail(int32_t result) const {
  throw Error(result == ROLEGRAD_CUDA_OUT_OF_MEMORY ? "ERR_OUT_OF_MEMORY" : "ERR_CUDA", table_->message(context_));
}

DeviceMemory::DeviceMemory(std::shared_ptr<const Device> device, size_t bytes)
    : device_(std::move(device)), bytes_(bytes) {
  device_->call(&Table::allocate, &data_, bytes);
}

DeviceMemory::~DeviceMemory() { device_->release(data_); }

}  // namespace rolegrad::cuda
