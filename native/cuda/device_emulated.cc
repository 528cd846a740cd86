// The device of tests: host memory, and copies that happen at once.
#include <cstdlib>
#include <cstring>

#include "cuda/context.h"

namespace rolegrad::gpu {

const char* const kLibraryName = "cuda-emulated";

Context* open_device(rolegrad_cuda_found& found) {
  std::strcpy(found.name, "emulated");
  found.devices = 1, found.major = 8;
  if (const char* failure = std::getenv("ROLEGRAD_CUDA_EMULATE_FAILURE"))
    throw Failure(ROLEGRAD_CUDA_UNAVAILABLE, failure);
  auto* context = new Context;
  // ROLEGRAD_CUDA_EMULATE_ORDER=descending: the other order of threads, for the tests that compare the two.
  if (const char* order = std::getenv("ROLEGRAD_CUDA_EMULATE_ORDER"); order && std::strcmp(order, "descending") == 0)
    context->stream = emulation::Order::descending;
  return context;
}

void close_device(Context* context) { delete context; }

void allocate(Context&, void** data, size_t bytes) {
  constexpr size_t kAlign = 256;
  *data = bytes > size_t(1) << 46 ? nullptr : std::aligned_alloc(kAlign, (bytes + kAlign) / kAlign * kAlign);
  if (!*data)
    throw Failure(ROLEGRAD_CUDA_OUT_OF_MEMORY, "Expected " + std::to_string(bytes) + " bytes of the emulated device");
  std::memset(*data, 0, bytes);
}

void release(Context&, void* data) { std::free(data); }

void copy(Context&, void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t rows) {
  for (size_t i = 0; i < rows && width > 0; i++)
    std::memmove(static_cast<char*>(to) + i * to_pitch, static_cast<const char*>(from) + i * from_pitch, width);
}

void upload(Context& c, void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t rows) {
  copy(c, to, to_pitch, from, from_pitch, width, rows);
}

void download(Context& c, void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t rows) {
  copy(c, to, to_pitch, from, from_pitch, width, rows);
}

void clear(Context&, void* to, size_t to_pitch, size_t width, size_t rows) {
  for (size_t i = 0; i < rows && width > 0; i++) std::memset(static_cast<char*>(to) + i * to_pitch, 0, width);
}

void synchronize(Context&, int32_t) {}

}  // namespace rolegrad::gpu
