// A device by the CUDA runtime, which is linked statically and opens the driver itself: without one its calls fail with
// an error that can be caught.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>

#include "cuda/context.h"

namespace rolegrad::gpu {

const char* const kLibraryName = "cuda";

namespace {

/// The oldest generation that the library has code for.
constexpr int kOldest = 80;

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // taken note of
  throw Failure(error == cudaErrorMemoryAllocation ? ROLEGRAD_CUDA_OUT_OF_MEMORY : ROLEGRAD_CUDA_FAILED,
                std::string(what) + ": " + cudaGetErrorString(error));
}

void move(Context& c, void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t rows,
          cudaMemcpyKind kind, const char* what) {
  if (width == 0 || rows == 0) return;
  if (rows == 1 || (to_pitch == width && from_pitch == width))
    return check(cudaMemcpyAsync(to, from, width * rows, kind, c.stream), what);
  check(cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, width, rows, kind, c.stream), what);
}

}  // namespace

Context* open_device(rolegrad_cuda_found& found) {
  cudaRuntimeGetVersion(&found.runtime);
  cudaDriverGetVersion(&found.driver);  // 0 without a driver
  const cudaError_t counted = cudaGetDeviceCount(&found.devices);
  cudaGetLastError();
  if (counted != cudaSuccess || found.devices == 0) {
    found.devices = 0;
    throw Failure(ROLEGRAD_CUDA_UNAVAILABLE, counted == cudaSuccess ? "no device" : cudaGetErrorString(counted));
  }
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, 0), "reading the device's properties");
  std::memcpy(found.name, properties.name, strnlen(properties.name, sizeof found.name - 1));  // `found` is zeroed
  found.major = properties.major, found.minor = properties.minor;
  found.memory_bytes = properties.totalGlobalMem;
  if (properties.major * 10 + properties.minor < kOldest)
    throw Failure(ROLEGRAD_CUDA_UNAVAILABLE, "a GPU of compute capability " + std::to_string(properties.major) + "." +
                                                 std::to_string(properties.minor) + ", below 8.0");
  check(cudaSetDevice(0), "choosing the device");
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "asking for free memory");
  found.free_bytes = free;
  auto* context = new Context;
  if (const cudaError_t error = cudaStreamCreateWithFlags(&context->stream, cudaStreamNonBlocking);
      error != cudaSuccess) {
    delete context;
    check(error, "making a stream");
  }
  return context;
}

void close_device(Context* context) {
  cudaStreamSynchronize(context->stream);
  cudaStreamDestroy(context->stream);
  delete context;
}

void allocate(Context& c, void** data, size_t bytes) {
  cudaSetDevice(0);  // of this thread: the engine's stream and the thread that loads are not the same
  const cudaError_t error = cudaMalloc(data, std::max<size_t>(bytes, 256));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    throw Failure(ROLEGRAD_CUDA_OUT_OF_MEMORY, "Expected " + std::to_string(bytes) +
                                                   " bytes of the GPU's memory but it has " + std::to_string(free) +
                                                   " free of " + std::to_string(total));
  }
  check(error, "asking for memory");
  check(cudaMemsetAsync(*data, 0, bytes, c.stream), "clearing memory");
}

void release(Context& c, void* data) {
  check(cudaStreamSynchronize(c.stream), "work before memory is given back");
  check(cudaFree(data), "giving memory back");
}

// From pageable memory: the call returns when the numbers are staged, so the caller may change them.
void upload(Context& c, void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t rows) {
  move(c, to, to_pitch, from, from_pitch, width, rows, cudaMemcpyHostToDevice, "copying to the device");
}

void download(Context& c, void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t rows) {
  move(c, to, to_pitch, from, from_pitch, width, rows, cudaMemcpyDeviceToHost, "copying from the device");
  check(cudaStreamSynchronize(c.stream), "the device's work");
}

void copy(Context& c, void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t rows) {
  move(c, to, to_pitch, from, from_pitch, width, rows, cudaMemcpyDeviceToDevice, "copying on the device");
}

void clear(Context& c, void* to, size_t to_pitch, size_t width, size_t rows) {
  if (width > 0 && rows > 0) check(cudaMemset2DAsync(to, to_pitch, 0, width, rows, c.stream), "clearing memory");
}

void synchronize(Context& c, int32_t) { check(cudaStreamSynchronize(c.stream), "the device's work"); }

}  // namespace rolegrad::gpu
