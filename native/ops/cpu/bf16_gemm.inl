// Matrix kernels of the bf16 multiply mode. One vdpbf16ps is two steps of a chain of fused multiply-adds in f32, the
// high halves of its operands first, with subnormal operands and sums taken as zero. Weights and activations are stored
// with the even k in the high half: every output element is one such chain over k in increasing order, whatever the
// tile, the block of k (sums wait in y) and the number of rows. The low-rank part goes on in f32, as in gemm.inl.

typedef uint16_t v32h __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t v16u __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint64_t v8u __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t v8w __attribute__((vector_size(32), aligned(4), may_alias));

/// Pairs of k in a block: a panel's is 48 KiB, and stays in L2 beside the rows of x.
constexpr int64_t BLOCK = 192;
/// Pairs where one tile has all rows: nothing is read twice.
constexpr int64_t LONG_BLOCK = 2048;
/// Rows that are packed at a time.
constexpr int64_t FORWARD_ROWS = 192, BACKWARD_ROWS = 768;
/// In u32: backward packs rows beside a block of weights.
constexpr int64_t SCRATCH = BACKWARD_ROWS * BLOCK + BLOCK * NR;

/// acc + the two products of each lane.
INLINE __m512 dot(__m512 acc, __m512i a, __m512i b) { return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b); }

/// To nearest even, as core/bf16.h does it; a NaN stays one.
INLINE uint32_t round_bits(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return bits | 0x00400000u;
  return bits + 0x7fffu + ((bits >> 16) & 1u);
}

/// n numbers rounded to bf16, as pairs; the last half of an odd row is zero.
INLINE void pack_row(uint32_t* to, const float* x, int64_t n) {
  int64_t k = 0;
  for (; k + LANES <= n; k += LANES) {
    v16u bits = *(const v16u*)(x + k);
    v16u rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    rounded = (bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x00400000u : rounded;
    const v8u both = (v8u)rounded;  // the even k is the low word
    *(v8w*)(to + k / 2) = __builtin_convertvector((both & 0xffff0000u) | (both >> 48), v8w);
  }
  for (; k < n; k += 2) to[k / 2] = (round_bits(x[k]) & 0xffff0000u) | (k + 1 < n ? round_bits(x[k + 1]) >> 16 : 0u);
}

/// Rows [m0, m1) of the order, or, without one, of x.
INLINE void pack_rows(uint32_t* to, int64_t ld, const float* x, int64_t ldx, const int32_t* order, int64_t m0,
                      int64_t m1, int64_t n) {
  for (int64_t m = m0; m < m1; m++) pack_row(to + (m - m0) * ld, x + (order ? order[m] : m) * ldx, n);
}

/// c [mr, nv * 16] = (add ? c : 0) + a b over pairs + u [mr, e] l [e, :] + bias.
struct TileTask {
  const uint32_t* a;
  int64_t as;
  const uint32_t* b;
  int64_t pairs;
  float* c;
  int64_t ldc;
  bool add;
  const float* bias;  // or null
  const float* u;
  int64_t us;
  const float* l;
  int64_t ldl, e;
  const int32_t* rows;  // of c and u
};

/// `mask`: columns of the last vector that exist; no others of c and l are touched.
template <int mr, int nv>
NOINLINE void tile(const TileTask& t, uint16_t mask) {
  const uint32_t *a = t.a, *b = t.b;
  const int64_t as = t.as;
  float* c[mr];
  EACH (i, mr) c[i] = t.c + t.rows[i] * t.ldc;
  auto load = [mask](const float* p, int j) {
    return j + 1 < nv ? _mm512_loadu_ps(p + j * LANES) : _mm512_maskz_loadu_ps(mask, p + j * LANES);
  };
  __m512 acc[mr][nv];
  if (t.add) {
    EACH (i, mr)
      EACH (j, nv) acc[i][j] = load(c[i], j);
  } else {
    EACH (i, mr)
      EACH (j, nv) acc[i][j] = _mm512_setzero_ps();
  }
  for (int64_t s = 0; s < t.pairs; s++) {
    __m512i bv[nv];
    EACH (j, nv) bv[j] = _mm512_loadu_si512(b + j * LANES);
    b += NR;
    EACH (i, mr) {
      const __m512i x = _mm512_set1_epi32(int(a[i * as]));
      EACH (j, nv) acc[i][j] = dot(acc[i][j], x, bv[j]);
    }
    a++;
  }
  for (int64_t s = 0; s < t.e; s++) {
    __m512 bv[nv];
    EACH (j, nv) bv[j] = load(t.l + s * t.ldl, j);
    EACH (i, mr) {
      const __m512 x = _mm512_set1_ps(t.u[t.rows[i] * t.us + s]);
      EACH (j, nv) acc[i][j] = _mm512_fmadd_ps(x, bv[j], acc[i][j]);
    }
  }
  if (t.bias) {
    EACH (j, nv) {
      const __m512 bv = load(t.bias, j);
      EACH (i, mr) acc[i][j] = _mm512_add_ps(acc[i][j], bv);
    }
  }
  EACH (i, mr)
    EACH (j, nv) {
      if (j + 1 < nv)
        _mm512_storeu_ps(c[i] + j * LANES, acc[i][j]);
      else
        _mm512_mask_storeu_ps(c[i] + j * LANES, mask, acc[i][j]);
    }
}

typedef void (*TileFn)(const TileTask&, uint16_t);
constexpr TileFn kTiles[NV][MR] = {
    {tile<1, 1>, tile<2, 1>, tile<3, 1>, tile<4, 1>, tile<5, 1>, tile<6, 1>},
    {tile<1, 2>, tile<2, 2>, tile<3, 2>, tile<4, 2>, tile<5, 2>, tile<6, 2>},
    {tile<1, 3>, tile<2, 3>, tile<3, 3>, tile<4, 3>, tile<5, 3>, tile<6, 3>},
    {tile<1, 4>, tile<2, 4>, tile<3, 4>, tile<4, 4>, tile<5, 4>, tile<6, 4>},
};

/// Rows [m0, m1) of the order through one panel of n columns. `t`: a packed from row m0 on, the others as for row 0;
/// where `last`, the low-rank part and the bias end the chains.
INLINE void panel_rows(int64_t m0, int64_t m1, int64_t n, const Routing& routing, bool last, TileTask t,
                       int64_t column) {
  const int64_t nv = (n + LANES - 1) / LANES;
  const auto mask = uint16_t(0xffffu >> (nv * LANES - n));
  const uint32_t* a = t.a;
  const float* u = t.u;
  float* c = t.c;
  if (!last) t.bias = nullptr;
  for_each_tile(m0, m1, routing, [&](int64_t m, int64_t mr, const LowRank* part) {
    t.e = last && part ? part->e : 0;
    if (t.e > 0) t.l = part->l + column, t.ldl = part->ldl, t.u = u + part->u_column;
    t.a = a + (m - m0) * t.as;
    t.rows = routing.order ? routing.order + m : kInOrder;
    if (!routing.order) t.c = c + m * t.ldc;
    kTiles[nv - 1][mr - 1](t, mask);
  });
}

/// y [mr, PW panels] (+)= a b: up to 3 rows of one panel would wait for their own chains (decode).
template <int mr>
NOINLINE void few_rows(const int32_t* rows, const uint32_t* a, int64_t as, const uint32_t* b, int64_t panel,
                       int64_t pairs, float* y, int64_t ldy, bool add) {
  constexpr int PW = mr == 1 ? 4 : 2;
  __m512 acc[mr][PW][NV];
  EACH (i, mr)
    EACH (q, PW)
      EACH (j, NV) acc[i][q][j] = add ? _mm512_loadu_ps(y + rows[i] * ldy + q * NR + j * LANES) : _mm512_setzero_ps();
  for (int64_t s = 0; s < pairs; s++)
    EACH (q, PW)
      EACH (j, NV) {
        const __m512i w = _mm512_loadu_si512(b + q * panel + s * NR + j * LANES);
        EACH (i, mr) acc[i][q][j] = dot(acc[i][q][j], _mm512_set1_epi32(int(a[i * as + s])), w);
      }
  EACH (i, mr)
    EACH (q, PW)
      EACH (j, NV) _mm512_storeu_ps(y + rows[i] * ldy + q * NR + j * LANES, acc[i][q][j]);
}

void forward_rows(const ForwardTask& t, int64_t m0, int64_t m1) {
  const int64_t rows = m1 - m0, all = (t.k + 1) / 2, step = rows <= MR ? LONG_BLOCK : BLOCK;
  const Routing routing{t.order, t.adapter, t.lora};
  TileTask tile{};
  tile.a = (uint32_t*)t.scratch, tile.ldc = t.ldy, tile.u = t.u, tile.us = t.ldu;
  for (int64_t s0 = 0; s0 < all || s0 == 0; s0 += step) {
    const int64_t pairs = min64(step, all - s0);
    const bool last = s0 + pairs >= all, add = s0 > 0;
    pack_rows((uint32_t*)t.scratch, pairs, t.x + 2 * s0, t.ldx, t.order, m0, m1, min64(2 * pairs, t.k - 2 * s0));
    tile.as = pairs;
    auto panel = [&](int64_t p) { return (const uint32_t*)t.panels + (p * all + s0) * NR; };
    auto finish = [&](int64_t p, int64_t steps, bool adds) {
      tile.b = panel(p), tile.pairs = steps, tile.add = adds;
      tile.c = t.y + p * NR, tile.bias = t.bias ? t.bias + p * NR : nullptr;
      panel_rows(m0, m1, min64(NR, t.n - p * NR), routing, last, tile, p * NR);
    };
    int64_t p = t.p0;
    if (rows <= 3 && pairs > 0)
      for (const int64_t wide = rows == 1 ? 4 : 2; p + wide <= t.p1 && (p + wide) * NR <= t.n; p += wide) {
        (rows == 1   ? few_rows<1>
         : rows == 2 ? few_rows<2>
                     : few_rows<3>)(t.order ? t.order + m0 : kInOrder, tile.a, pairs, panel(p), all * NR, pairs,
                                    t.y + (t.order ? 0 : m0 * t.ldy) + p * NR, t.ldy, add);
        for (int64_t q = p; q < p + wide; q++)
          if (last && (t.order || t.bias)) finish(q, 0, true);
      }
    for (; p < t.p1; p++) finish(p, pairs, add);
  }
}

void forward(const ForwardTask& t) {
  for (int64_t m = t.m0; m < t.m1; m += FORWARD_ROWS) forward_rows(t, m, min64(m + FORWARD_ROWS, t.m1));
}

/// Columns [c0, c0 + NR) of w for its rows n0 .. n0 + nn, as pairs of rows [nn / 2, NR] with the even row in the high
/// half: a transposed block of the forward panels. n0 is a multiple of 16; rows up to the next multiple are written.
NOINLINE void transposed_block(const void* panels, int64_t k, int64_t c0, int64_t n0, int64_t nn, uint32_t* to) {
  const int64_t all = (k + 1) / 2;
  for (int64_t n = n0; n < n0 + nn; n += LANES)
    for (int64_t c = 0; c < min64(NR, k - c0); c += 2 * LANES) {
      const int64_t s = (c0 + c) / 2;
      const uint32_t* from = (const uint32_t*)panels + (n / NR * all + s) * NR + n % NR;
      v16u r[LANES];  // [pair of columns][n], then [n][pair of columns]
      EACH (i, LANES) r[i] = s + i < all ? *(const v16u*)(from + i * NR) : v16u{};
      transpose(r);
      EACH (i, LANES / 2) {
        const v32h a = (v32h)r[2 * i], b = (v32h)r[2 * i + 1];
        uint32_t* row = to + ((n - n0) / 2 + i) * NR + c;
        *(v32h*)row = SHUFFLE(b, a, 1, 33, 0, 32, 3, 35, 2, 34, 5, 37, 4, 36, 7, 39, 6, 38, 9, 41, 8, 40, 11, 43, 10,
                              42, 13, 45, 12, 44, 15, 47, 14, 46);
        *(v32h*)(row + LANES) = SHUFFLE(b, a, 17, 49, 16, 48, 19, 51, 18, 50, 21, 53, 20, 52, 23, 55, 22, 54, 25, 57,
                                        24, 56, 27, 59, 26, 58, 29, 61, 28, 60, 31, 63, 30, 62);
      }
    }
}

void backward_rows(const BackwardTask& t, int64_t m0, int64_t m1) {
  auto *b = (uint32_t*)t.scratch, *a = b + BLOCK * NR;
  const Routing routing{t.order, t.adapter, t.lora};
  TileTask tile{};
  tile.a = a, tile.b = b, tile.ldc = t.lddx, tile.add = t.accumulate, tile.u = t.du, tile.us = t.lddu;
  for (int64_t i = 0; i < t.module_count; i++) {
    const BackwardModule& w = t.modules[i];
    for (int64_t n0 = 0; n0 < w.n; n0 += 2 * BLOCK) {
      const int64_t nn = min64(2 * BLOCK, w.n - n0);
      const bool last = i + 1 == t.module_count && n0 + nn >= w.n;
      tile.as = tile.pairs = (nn + 1) / 2;
      pack_rows(a, tile.as, t.dy + w.column + n0, t.lddy, t.order, m0, m1, nn);
      for (int64_t q = t.q0; q < t.q1; q++) {
        transposed_block(w.panels, t.k, q * NR, n0, nn, b);
        tile.c = t.dx + q * NR;
        panel_rows(m0, m1, min64(NR, t.k - q * NR), routing, last, tile, q * NR);
      }
      tile.add = true;
    }
  }
}

void backward(const BackwardTask& t) {
  for (int64_t m = t.m0; m < t.m1; m += BACKWARD_ROWS) backward_rows(t, m, min64(m + BACKWARD_ROWS, t.m1));
}
