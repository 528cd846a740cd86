#pragma once

#include <cstdint>

namespace rolegrad::testing {

/// The n-th `operator new` of any thread from now on throws std::bad_alloc, once; 0: none does. True where it has.
void fail_allocation(int64_t n);
bool allocation_failed();
/// Blocks of 16 KiB and more that `operator new` has given so far: lists of a few numbers for each of some hundred
/// tokens are smaller.
int64_t large_allocations();
/// Bytes of those blocks, given back or not.
int64_t large_bytes();

}  // namespace rolegrad::testing
