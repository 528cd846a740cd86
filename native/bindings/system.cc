// setErrorClass(RolegradError): the class that every error of this environment is made of.
// armFault("allocation" | "task", n), only where ROLEGRAD_TEST_HOOKS is set: failures for tests.
// cpuInfo(): what the CPU offers, what the engine makes of it, and its threads.

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "core/cpu.h"
#include "core/executor.h"
#include "core/fault.h"
#include "core/numerics.h"

namespace rolegrad::bindings {
namespace {

void set_error_class(const Napi::CallbackInfo& info) {
  constructor(info.Env(), "RolegradError") = Napi::Persistent(function_argument(info[0], "errorClass"));
}

/// The instruction sets that the engine cares for, as far as CPU and operating system both support them.
std::vector<std::string> instruction_sets() {
  std::vector<std::string> found;
#if defined(__x86_64__)
#define ROLEGRAD_FOUND(name) \
  if (__builtin_cpu_supports(name)) found.emplace_back(name)
  __builtin_cpu_init();
  ROLEGRAD_FOUND("sse4.2");
  ROLEGRAD_FOUND("avx");
  ROLEGRAD_FOUND("avx2");
  ROLEGRAD_FOUND("fma");
  ROLEGRAD_FOUND("avx512f");
  ROLEGRAD_FOUND("avx512bw");
  ROLEGRAD_FOUND("avx512dq");
  ROLEGRAD_FOUND("avx512vl");
  ROLEGRAD_FOUND("avx512bf16");
#undef ROLEGRAD_FOUND
#elif defined(__aarch64__)
  found.emplace_back("neon");
#endif
  return found;
}

/// The kernels that a CPU model runs on: what ROLEGRAD_ISA asks for, else the best; "" where that cannot run here.
std::string chosen_kernels() {
  const std::vector<std::string> available = available_isas();
  const char* wanted = std::getenv("ROLEGRAD_ISA");
  if (wanted == nullptr || *wanted == '\0') return available.empty() ? "" : available.front();
  return std::find(available.begin(), available.end(), wanted) == available.end() ? "" : wanted;
}

Napi::Value cpu_info(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guard(env, [&] {
    const std::vector<std::string> sets = instruction_sets();
    Napi::Array found = Napi::Array::New(env);
    for (std::uint32_t i = 0; i < sets.size(); ++i) found.Set(i, sets[i]);
    Napi::Object result = Napi::Object::New(env);
    result.Set("instructionSets", found);
    result.Set("kernels", chosen_kernels());
    Napi::Array precisions = Napi::Array::New(env);
    if (chosen_kernels() != "") precisions.Set(0u, "exact");
    if (chosen_kernels() == "avx512" && has_avx512_bf16()) precisions.Set(1u, "bf16-multiply");
    result.Set("precisions", precisions);
    result.Set("threads", available_parallelism());
    result.Set("numericsVersion", kNumericsVersion);
    return result;
  });
}

void arm_fault_(const Napi::CallbackInfo& info) {
  const std::string kind = string_argument(info[0], "kind");
  if (kind != "allocation" && kind != "task") expected("\"allocation\" or \"task\"", "kind", info[0]);
  arm_fault(kind == "task" ? Fault::task : Fault::allocation, integer_argument(info[1], "n", 0));
}

}  // namespace

void register_system(Napi::Env env, Napi::Object exports) {
  exports.Set("setErrorClass", Napi::Function::New(env, set_error_class, "setErrorClass"));
  if (std::getenv("ROLEGRAD_TEST_HOOKS") != nullptr)
    exports.Set("armFault", Napi::Function::New(env, arm_fault_, "armFault"));
  exports.Set("cpuInfo", Napi::Function::New(env, cpu_info, "cpuInfo"));
}

}  // namespace rolegrad::bindings
