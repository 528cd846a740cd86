// The backend that the operation tables run on in rolegrad_cuda_tests: that of the CUDA library, or of its twin.
#include "cuda_backends.h"

#include <unistd.h>

#include <climits>
#include <cstdlib>

#include "core/error.h"
#include "op_cases.h"

namespace rolegrad::testing {

namespace {

std::string beside_this_program() {
  char path[PATH_MAX];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof path);
  const std::string program(path, n > 0 ? size_t(n) : 0);
  return program.substr(0, program.rfind('/') + 1) + "librolegrad_cuda_emulated.so";
}

Backend& first() {
  static const std::unique_ptr<Backend> backend = make_cuda_backend(cuda_library());
  return *backend;
}

/// Of the twin: one whose threads run in the other order.
Backend& second() {
  static const std::unique_ptr<Backend> backend = [] {
    setenv("ROLEGRAD_CUDA_EMULATE_ORDER", "descending", 1);
    auto made = make_cuda_backend(cuda_library());
    unsetenv("ROLEGRAD_CUDA_EMULATE_ORDER");
    return made;
  }();
  return *backend;
}

}  // namespace

const std::string& cuda_library() {
  static const std::string path = [] {
    const char* given = std::getenv("ROLEGRAD_CUDA_LIBRARY");
    return given ? std::string(given) : beside_this_program();
  }();
  return path;
}

bool cuda_is_emulated() { return first().name() == "cuda-emulated"; }

const std::vector<std::string>& fast_backends() {
  static const std::vector<std::string> names{"cuda"};
  return names;
}

Backend* fast_backend(size_t) { return &first(); }

bool has_bf16_mode() { return false; }
Backend* bf16_backend() { return nullptr; }
Backend& bf16_reference() { throw Error("ERR_PRECISION", "Expected no test of the bf16 multiply mode here"); }

std::unique_ptr<Backend> another(Backend& backend) {
  return backend.name() == "reference" ? make_reference_backend() : make_cuda_backend(cuda_library());
}

const char* again_how() { return "from run to run, and in both orders of an emulated block's threads"; }

void check_again(Cases cases, Backend& backend) {
  for (const Case& each : cases()) compare(each.name, each.run(second()), each.run(backend), true);
}

}  // namespace rolegrad::testing
