#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

#include "cuda/launch.h"
#include "cuda/table.h"

// What the host side of the library has of a device: memory, copies and one stream. Implemented twice, over the CUDA
// runtime (device_cuda.cc) and in host memory (device_emulated.cc).

/// Behind the table's opaque pointer.
struct rolegrad_cuda_context {
  rolegrad::gpu::Stream stream{};
  std::string message;
};

namespace rolegrad::gpu {

using Context = ::rolegrad_cuda_context;

/// A call failed with one of the table's codes.
class Failure : public std::runtime_error {
 public:
  Failure(int code, const std::string& what) : std::runtime_error(what), code_(code) {}
  int code() const { return code_; }

 private:
  int code_;
};

extern const char* const kLibraryName;

/// Throws a Failure that says what was found and what is missing; `found` is filled either way.
Context* open_device(rolegrad_cuda_found& found);
void close_device(Context* context);

// Every other function of the table, by its name.
#define ROLEGRAD_CUDA_FUNCTION(name, ...) void name(Context& context, __VA_ARGS__);
#include "cuda/functions.inl"
#undef ROLEGRAD_CUDA_FUNCTION

}  // namespace rolegrad::gpu
