#pragma once

#include <string>

namespace rolegrad::testing {

/// The CUDA library that the tests open: ROLEGRAD_CUDA_LIBRARY, or the emulated twin beside this program.
const std::string& cuda_library();
/// It is the twin.
bool cuda_is_emulated();

}  // namespace rolegrad::testing
