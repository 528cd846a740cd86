// The table that the library exports: each function with its exceptions turned into codes.
#include "cuda/table.h"

#include <exception>
#include <new>

#include "cuda/context.h"

namespace rolegrad::gpu {

namespace {

/// Of open(), which has no context to keep it in.
thread_local std::string open_message;

template <class Body>
int32_t guarded(std::string& message, Body body) noexcept {
  try {
    try {
      body();
      return ROLEGRAD_CUDA_OK;
    } catch (const Failure& error) {
      message = error.what();
      return error.code();
    } catch (const std::bad_alloc&) {
      message = "the host has no memory left";
      return ROLEGRAD_CUDA_OUT_OF_MEMORY;
    } catch (const std::exception& error) {
      message = error.what();
    }
  } catch (...) {  // no memory for the message
  }
  return ROLEGRAD_CUDA_FAILED;
}

int32_t open(rolegrad_cuda_context** context, rolegrad_cuda_found* found) {
  *context = nullptr;
  *found = {};
  return guarded(open_message, [&] { *context = open_device(*found); });
}

void close(rolegrad_cuda_context* context) {
  std::string unused;
  guarded(unused, [&] { close_device(context); });
}

const char* message(rolegrad_cuda_context* context) { return (context ? context->message : open_message).c_str(); }

template <auto function>
struct Entry;
template <class... A, void (*function)(Context&, A...)>
struct Entry<function> {
  static int32_t call(rolegrad_cuda_context* context, A... arguments) {
    return guarded(context->message, [&] { function(*context, arguments...); });
  }
};

constexpr rolegrad_cuda_table make_table() {
  rolegrad_cuda_table table{};
  table.version = ROLEGRAD_CUDA_TABLE_VERSION;
  table.size = sizeof(rolegrad_cuda_table);
  table.open = &open, table.close = &close, table.message = &message;
#define ROLEGRAD_CUDA_FUNCTION(name, ...) table.name = &Entry<&gpu::name>::call;
#include "cuda/functions.inl"
#undef ROLEGRAD_CUDA_FUNCTION
  return table;
}

}  // namespace
}  // namespace rolegrad::gpu

extern "C" __attribute__((visibility("default"))) const rolegrad_cuda_table* rolegrad_cuda_library(void) {
  static const rolegrad_cuda_table table = [] {
    rolegrad_cuda_table made = rolegrad::gpu::make_table();
    made.name = rolegrad::gpu::kLibraryName;
    return made;
  }();
  return &table;
}
