#pragma once

#include <cstddef>
#include <cstdint>

namespace rolegrad::testing {

/// The n-th `operator new` of any thread from now on throws std::bad_alloc, once; 0: none does. True where it has.
void fail_allocation(int64_t n);
bool allocation_failed();

/// Blocks of at least kLargeBlock bytes that new has given so far: lists of a few numbers for each of 200 tokens are
/// below it.
inline constexpr std::size_t kLargeBlock = std::size_t(16) << 10;
int64_t large_blocks();

}  // namespace rolegrad::testing
