#include "core/cpu.h"

namespace rolegrad {

std::vector<std::string> available_isas() {
  std::vector<std::string> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    found.push_back("avx512");
  if (avx2) found.push_back("avx2");
#elif defined(__aarch64__)
  found.push_back("neon");
#endif
  return found;
}

bool has_avx512_bf16() {
#if defined(__x86_64__)
  const auto found = available_isas();
  return !found.empty() && found.front() == "avx512" && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

}  // namespace rolegrad
