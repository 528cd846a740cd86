#pragma once

#include <cstdint>

namespace rolegrad::testing {

/// The n-th `operator new` of any thread from now on throws std::bad_alloc, once; 0: none does. True where it has.
void fail_allocation(int64_t n);
bool allocation_failed();

}  // namespace rolegrad::testing
