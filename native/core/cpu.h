#pragma once

#include <string>
#include <vector>

namespace rolegrad {

/// The instruction sets that this CPU (and the operating system) can run and that kernels exist for, best first.
std::vector<std::string> available_isas();

/// It has those of AVX-512, and AVX512-BF16 beside them.
bool has_avx512_bf16();

}  // namespace rolegrad
