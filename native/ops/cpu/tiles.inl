// What the matrix kernels share: which rows a tile has, and how blocks are transposed. Needs LANES, MR and NV, as
// vector.inl.

#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))
// Look at the inner loop's disassembly after a change: with the sums' loops not unrolled g++ spills them and a product
// falls to 35 %.
#define EACH(i, n) _Pragma("GCC unroll 16") for (int i = 0; i < (n); i++)

constexpr int64_t NR = NV * LANES;

INLINE int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

/// Rows of the next tile: m rows in as few tiles as MR allows, about equally tall, so that none is left with a short
/// one.
INLINE int64_t tile_rows(int64_t m) {
  int64_t tiles = (m + MR - 1) / MR;
  return (m + tiles - 1) / tiles;
}

constexpr int32_t kInOrder[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};

/// Who adds what to a row: the rows of a task, sorted by adapter, and each adapter's low-rank part.
struct Routing {
  const int32_t* order;    // or null: no row has an adapter
  const int32_t* adapter;  // by row
  const LowRank* lora;     // by adapter
};

/// tile(m, mr, part) for rows [m, m + mr) of the order, all of [m0, m1). Rows of one adapter share tiles, wherever they
/// lie; part: what it adds, or null.
template <class F>
INLINE void for_each_tile(int64_t m0, int64_t m1, const Routing& routing, F tile) {
  const auto [order, adapter, lora] = routing;
  for (int64_t m = m0, end; m < m1; m = end) {
    end = m1;
    const LowRank* part = nullptr;
    if (order) {
      const int32_t own = adapter[order[m]];
      for (end = m + 1; end < m1 && adapter[order[end]] == own;) end++;
      if (own >= 0 && lora[own].e > 0) part = &lora[own];
    }
    for (int64_t i = m, mr; i < end; i += mr) {
      mr = tile_rows(end - i);
      tile(i, mr, part);
    }
  }
}

// Two-source shuffles that stay within 128-bit lanes, and those that exchange such lanes: each one instruction.
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#if LANES == 16
#define LOW_PAIRS(a, b) SHUFFLE(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29)
#define HIGH_PAIRS(a, b) SHUFFLE(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31)
#define LOW_HALVES(a, b) SHUFFLE(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
#define HIGH_HALVES(a, b) SHUFFLE(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)
#define EVEN_LANES(a, b) SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27)
#define ODD_LANES(a, b) SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31)
#elif LANES == 8
#define LOW_PAIRS(a, b) SHUFFLE(a, b, 0, 8, 1, 9, 4, 12, 5, 13)
#define HIGH_PAIRS(a, b) SHUFFLE(a, b, 2, 10, 3, 11, 6, 14, 7, 15)
#define LOW_HALVES(a, b) SHUFFLE(a, b, 0, 1, 8, 9, 4, 5, 12, 13)
#define HIGH_HALVES(a, b) SHUFFLE(a, b, 2, 3, 10, 11, 6, 7, 14, 15)
#define EVEN_LANES(a, b) SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11)
#define ODD_LANES(a, b) SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15)
#else
#define LOW_PAIRS(a, b) SHUFFLE(a, b, 0, 4, 1, 5)
#define HIGH_PAIRS(a, b) SHUFFLE(a, b, 2, 6, 3, 7)
#define LOW_HALVES(a, b) SHUFFLE(a, b, 0, 1, 4, 5)
#define HIGH_HALVES(a, b) SHUFFLE(a, b, 2, 3, 6, 7)
#endif

/// r [LANES][LANES] of 32-bit elements becomes its transpose: four rows at a time within 128-bit lanes, then those
/// lanes are exchanged.
template <class V>
INLINE void transpose(V* r) {
  EACH (q, LANES / 4) {
    const V a = LOW_PAIRS(r[4 * q], r[4 * q + 1]), b = HIGH_PAIRS(r[4 * q], r[4 * q + 1]);
    const V c = LOW_PAIRS(r[4 * q + 2], r[4 * q + 3]), d = HIGH_PAIRS(r[4 * q + 2], r[4 * q + 3]);
    r[4 * q] = LOW_HALVES(a, c);
    r[4 * q + 1] = HIGH_HALVES(a, c);
    r[4 * q + 2] = LOW_HALVES(b, d);
    r[4 * q + 3] = HIGH_HALVES(b, d);
  }
#if LANES == 16
  EACH (j, 4) {
    const V a = EVEN_LANES(r[j], r[j + 4]), b = ODD_LANES(r[j], r[j + 4]);
    const V c = EVEN_LANES(r[j + 8], r[j + 12]), d = ODD_LANES(r[j + 8], r[j + 12]);
    r[j] = EVEN_LANES(a, c);
    r[j + 8] = ODD_LANES(a, c);
    r[j + 4] = EVEN_LANES(b, d);
    r[j + 12] = ODD_LANES(b, d);
  }
#elif LANES == 8
  EACH (j, 4) {
    const V a = EVEN_LANES(r[j], r[j + 4]), b = ODD_LANES(r[j], r[j + 4]);
    r[j] = a;
    r[j + 4] = b;
  }
#endif
}
