#pragma once

#include <string>
#include <vector>

namespace rolegrad {

/// The instruction sets that this CPU (and the operating system) can run and that kernels exist for, best first.
std::vector<std::string> available_isas();

}  // namespace rolegrad
