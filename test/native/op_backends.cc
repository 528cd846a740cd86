// The backends that the operation tables run on: the CPU's kernels, one set for each instruction set.
#include <map>

#include "core/cpu.h"
#include "core/error.h"
#include "core/executor.h"
#include "op_cases.h"

namespace rolegrad::testing {

const std::vector<std::string>& fast_backends() {
#if defined(__x86_64__) || defined(_M_X64)
  static const std::vector<std::string> names{"avx2", "avx512"};
#elif defined(__aarch64__)
  static const std::vector<std::string> names{"neon"};
#else
  static const std::vector<std::string> names;
#endif
  return names;
}

Backend* fast_backend(size_t i) {
  static std::map<size_t, std::unique_ptr<Backend>> made;
  if (auto found = made.find(i); found != made.end()) return found->second.get();
  std::unique_ptr<Backend> backend;
  try {
    backend = make_cpu_backend(fast_backends()[i]);
  } catch (const Error& error) {
    if (error.code() != "ERR_CPU_UNSUPPORTED") throw;
  }
  return (made[i] = std::move(backend)).get();
}

bool has_bf16_mode() { return true; }

Backend* bf16_backend() {
  static const std::unique_ptr<Backend> backend =
      has_avx512_bf16() ? make_cpu_backend(Precision::bf16_multiply) : nullptr;
  return backend.get();
}

Backend& bf16_reference() {
  static const std::unique_ptr<Backend> backend = make_reference_backend(Precision::bf16_multiply);
  return *backend;
}

std::unique_ptr<Backend> another(Backend& backend) {
  if (&backend == bf16_backend()) return make_cpu_backend(Precision::bf16_multiply);
  return backend.name() == "reference" ? make_reference_backend() : make_cpu_backend(backend.name().substr(4));
}

const char* again_how() { return "with one thread and with all"; }

void check_again(Cases cases, Backend& backend) {
  Executor& executor = Executor::shared();
  for (const Case& each : cases()) {
    executor.limit_threads(1);
    const Outputs one = each.run(backend);
    executor.limit_threads(executor.threads());
    compare(each.name, each.run(backend), one, true);
  }
}

}  // namespace rolegrad::testing
