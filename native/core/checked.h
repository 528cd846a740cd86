#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "core/error.h"

namespace rolegrad {

/// The product of sizes of which none is negative; ERR_OUT_OF_MEMORY where no memory could hold so many bytes.
inline size_t checked_bytes(std::initializer_list<int64_t> factors) {
  size_t product = 1;
  for (int64_t factor : factors)
    if (factor < 0 || __builtin_mul_overflow(product, size_t(factor), &product) || product > size_t(PTRDIFF_MAX)) {
      std::string text;
      for (int64_t f : factors) text += (text.empty() ? "" : " x ") + std::to_string(f);
      throw Error("ERR_OUT_OF_MEMORY", "Expected a size that memory can have but received " + text + " bytes");
    }
  return product;
}

}  // namespace rolegrad
