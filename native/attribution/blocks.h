#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "attribution/table.h"
#include "core/executor.h"

namespace rolegrad::attribution {

/// Runs f(block, first, last) for every block of `step` of `size` items, in any order and on any thread; a single block
/// on this one. Throws ERR_ABORTED.
template <class F>
void for_each_block(std::size_t size, std::size_t step, const StopFlag* stop, F f) {
  const auto run = [&](std::int64_t block, int) {
    check_stop(stop);
    const std::size_t begin = static_cast<std::size_t>(block) * step;
    f(static_cast<std::size_t>(block), begin, std::min(size, begin + step));
  };
  const auto blocks = static_cast<std::int64_t>((size + step - 1) / step);
  if (blocks == 1) {
    run(0, 0);
  } else {
    Executor::shared().parallel_for(blocks, run);
  }
}

}  // namespace rolegrad::attribution
