// Matrix kernels. Every output element is one chain of fused multiply-adds over k in increasing order, so that neither
// the tile's shape nor blocking changes a bit: blocks of k leave the sums in y and take them up again.

// Look at the inner loop's disassembly after a change: with the sums' loops not unrolled g++ spills them and this falls
// to 35 %.
#define EACH(i, n) _Pragma("GCC unroll 16") for (int i = 0; i < (n); i++)

/// c [mr, nv * LANES] = (add ? c : 0) + a [mr, k] b [k, :] + u [mr, e] l [e, :] + bias. `ta`: a is stored [k, mr].
template <int mr, int nv, bool ta>
NOINLINE void tile(const float* a, int64_t as, const float* b, int64_t ldb, int64_t k, const float* u, int64_t us,
                   const float* l, int64_t ldl, int64_t e, float* c, int64_t ldc, bool add, const float* bias) {
  vf acc[mr][nv];
  if (add) {
    EACH (i, mr)
      EACH (j, nv) acc[i][j] = load(c + i * ldc + j * LANES);
  } else {
    EACH (i, mr)
      EACH (j, nv) acc[i][j] = vf{};
  }
  for (int64_t s = 0; s < k; s++) {
    vf bv[nv];
    EACH (j, nv) bv[j] = load(b + j * LANES);
    b += ldb;
    EACH (i, mr) {
      vf x = splat(ta ? a[i] : a[i * as]);
      EACH (j, nv) acc[i][j] = fma(x, bv[j], acc[i][j]);
    }
    a += ta ? as : 1;
  }
  for (int64_t s = 0; s < e; s++) {
    vf bv[nv];
    EACH (j, nv) bv[j] = load(l + s * ldl + j * LANES);
    EACH (i, mr) {
      vf x = splat(u[i * us + s]);
      EACH (j, nv) acc[i][j] = fma(x, bv[j], acc[i][j]);
    }
  }
  if (bias) {
    EACH (j, nv) {
      vf bv = load(bias + j * LANES);
      EACH (i, mr) acc[i][j] = acc[i][j] + bv;
    }
  }
  EACH (i, mr)
    EACH (j, nv) store(c + i * ldc + j * LANES, acc[i][j]);
}

typedef void (*TileFn)(const float*, int64_t, const float*, int64_t, int64_t, const float*, int64_t, const float*,
                       int64_t, int64_t, float*, int64_t, bool, const float*);
template <int nv, bool ta>
struct Tiles {
  // MR is at most 12; entries beyond it are never asked for.
  static constexpr TileFn at[13] = {
      nullptr,
      tile<1, nv, ta>,
      tile<2, nv, ta>,
      tile<3, nv, ta>,
      tile<4, nv, ta>,
      tile<5, nv, ta>,
      tile<6, nv, ta>,
      tile < MR < 7 ? MR : 7,
      nv,
      ta >,
      tile < MR < 8 ? MR : 8,
      nv,
      ta >,
      tile < MR < 9 ? MR : 9,
      nv,
      ta >
      , tile < MR < 10 ? MR : 10, nv, ta >, tile < MR < 11 ? MR : 11, nv, ta >, tile < MR < 12 ? MR : 12, nv, ta > };
};

/// c [m, n] (+)= a b for n a multiple of LANES: the small products of attention.
template <bool ta>
INLINE void small_gemm(int64_t m, int64_t n, int64_t k, const float* a, int64_t as, const float* b, int64_t ldb,
                       float* c, int64_t ldc, bool add) {
  for (int64_t j = 0; j < n;) {
    bool wide = n - j >= NR;
    for (int64_t i = 0; i < m; i += MR) {
      int64_t mr = min64(MR, m - i);
      TileFn f = wide ? Tiles<NV, ta>::at[mr] : Tiles<1, ta>::at[mr];
      f(a + (ta ? i : i * as), as, b + j, ldb, k, nullptr, 0, nullptr, 0, 0, c + i * ldc + j, ldc, add, nullptr);
    }
    j += wide ? NR : LANES;
  }
}

/// k steps [k0, k0 + kk) of forward panel p: the panel itself, or widened from bf16 into scratch.
INLINE const float* forward_block(const void* panels, bool bf16, int64_t k, int64_t p, int64_t k0, int64_t kk,
                                  float* scratch) {
  int64_t at = (p * k + k0) * NR;
  if (!bf16) return (const float*)panels + at;
  const uint16_t* from = (const uint16_t*)panels + at;
  for (int64_t i = 0; i < kk * NR; i += LANES) store(scratch + i, widen(from + i));
  return scratch;
}

typedef float v4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t v4i __attribute__((vector_size(16)));

/// Columns [c0, c0 + NR) of w for its rows n0 .. n0 + nn, as [nn, NR]: a transposed block of the forward panels (4 x 4
/// at a time, so that it costs little beside the rows that use it).
NOINLINE void transposed_block(const void* panels, bool bf16, int64_t k, int64_t c0, int64_t n0, int64_t nn,
                               float* scratch) {
  int64_t columns = min64(NR, k - c0);
  for (int64_t n = n0; n < n0 + nn; n += 4) {
    // n0 is a multiple of NR's divisors only for whole blocks; blocks start at multiples of the block size, a multiple
    // of 4.
    const int64_t panel = n / NR, lane = n % NR;
    float* to = scratch + (n - n0) * NR;
    for (int64_t c = 0; c < columns; c += 4) {
      v4 r[4];
      for (int i = 0; i < 4; i++) {
        if (c + i >= columns) {
          r[i] = v4{};
        } else if (bf16) {
          const uint16_t* from = (const uint16_t*)panels + (panel * k + c0 + c + i) * NR + lane;
          for (int j = 0; j < 4; j++) {
            uint32_t bits = uint32_t(from[j]) << 16;
            float x;
            __builtin_memcpy(&x, &bits, 4);
            r[i][j] = x;
          }
        } else {
          r[i] = *(const v4*)((const float*)panels + (panel * k + c0 + c + i) * NR + lane);
        }
      }
      v4 a = __builtin_shuffle(r[0], r[1], v4i{0, 4, 1, 5}), b = __builtin_shuffle(r[0], r[1], v4i{2, 6, 3, 7});
      v4 d = __builtin_shuffle(r[2], r[3], v4i{0, 4, 1, 5}), e = __builtin_shuffle(r[2], r[3], v4i{2, 6, 3, 7});
      *(v4*)(to + c) = __builtin_shuffle(a, d, v4i{0, 1, 4, 5});
      *(v4*)(to + NR + c) = __builtin_shuffle(a, d, v4i{2, 3, 6, 7});
      *(v4*)(to + 2 * NR + c) = __builtin_shuffle(b, e, v4i{0, 1, 4, 5});
      *(v4*)(to + 3 * NR + c) = __builtin_shuffle(b, e, v4i{2, 3, 6, 7});
    }
  }
}

/// A tile whose last columns do not exist: through a buffer, so that nothing beyond n is written.
INLINE void edge_tile(TileFn f, int64_t mr, int64_t n, const float* a, int64_t as, const float* b, int64_t k,
                      const float* u, int64_t us, const float* l, int64_t ldl, int64_t e, float* c, int64_t ldc,
                      bool add, const float* bias) {
  float t[MR * NR];
  for (int64_t i = 0; i < mr * NR; i++) t[i] = 0;
  if (add)
    for (int64_t i = 0; i < mr; i++)
      for (int64_t j = 0; j < n; j++) t[i * NR + j] = c[i * ldc + j];
  f(a, as, b, NR, k, u, us, l, ldl, e, t, NR, add, bias);
  for (int64_t i = 0; i < mr; i++)
    for (int64_t j = 0; j < n; j++) c[i * ldc + j] = t[i * NR + j];
}

/// One tile with the low-rank part of its rows: in one go where they share an adapter, else row by row after the shared
/// part.
INLINE void routed_tile(int64_t mr, int64_t n, const float* a, int64_t as, const float* b, int64_t k, bool last,
                        const int32_t* adapter, const LowRank* lora, const float* u, int64_t ldu, int64_t column,
                        float* c, int64_t ldc, bool add, const float* bias) {
  int32_t first = last && adapter ? adapter[0] : -1;
  bool mixed = false;
  if (last && adapter)
    for (int64_t i = 1; i < mr; i++) mixed |= adapter[i] != first;
  LowRank own = {};
  if (first >= 0 && !mixed) own = lora[first];
  const float* l = own.e ? own.l + column : nullptr;
  const float* end = last && !mixed ? bias : nullptr;
  const float* uu = own.e ? u + own.u_column : nullptr;
  if (n == NR) {
    Tiles<NV, false>::at[mr](a, as, b, NR, k, uu, ldu, l, own.ldl, own.e, c, ldc, add, end);
  } else {
    edge_tile(Tiles<NV, false>::at[mr], mr, n, a, as, b, k, uu, ldu, l, own.ldl, own.e, c, ldc, add, end);
  }
  if (!mixed) return;
  // Runs of rows with one adapter: a role's span is seldom shorter than four tokens.
  for (int64_t i = 0, end = 0; i < mr; i = end) {
    for (end = i + 1; end < mr && adapter[end] == adapter[i];) end++;
    LowRank row = adapter[i] >= 0 ? lora[adapter[i]] : LowRank{};
    const float* rl = row.e ? row.l + column : nullptr;
    const float* ru = row.e ? u + i * ldu + row.u_column : nullptr;
    if (!row.e && !bias) continue;
    if (n == NR)
      Tiles<NV, false>::at[end - i](nullptr, 0, nullptr, 0, 0, ru, ldu, rl, row.ldl, row.e, c + i * ldc, ldc, true,
                                    bias);
    else
      edge_tile(Tiles<NV, false>::at[end - i], end - i, n, nullptr, 0, nullptr, 0, ru, ldu, rl, row.ldl, row.e,
                c + i * ldc, ldc, true, bias);
  }
}

/// Rows of the next tile: m rows in as few tiles as MR allows, about equally tall, so that none is left with a short
/// one.
INLINE int64_t tile_rows(int64_t m) {
  int64_t tiles = (m + MR - 1) / MR;
  return (m + tiles - 1) / tiles;
}

/// mr <= 3 rows, PW panels side by side: one panel alone would wait for its own chain (decode).
template <int mr, bool bf16>
NOINLINE void few_rows(const float* x, int64_t ldx, const void* panels, int64_t k, int64_t p, float* y, int64_t ldy) {
  constexpr int PW = mr == 1 ? 4 : 2;
  vf acc[mr][PW][NV];
  EACH (i, mr)
    EACH (q, PW)
      EACH (j, NV) acc[i][q][j] = vf{};
  for (int64_t s = 0; s < k; s++) {
    EACH (q, PW)
      EACH (j, NV) {
        int64_t at = ((p + q) * k + s) * NR + j * LANES;
        vf b = bf16 ? widen((const uint16_t*)panels + at) : load((const float*)panels + at);
        EACH (i, mr) acc[i][q][j] = fma(splat(x[i * ldx + s]), b, acc[i][q][j]);
      }
  }
  EACH (i, mr)
    EACH (q, PW)
      EACH (j, NV) store(y + i * ldy + (p + q) * NR + j * LANES, acc[i][q][j]);
}

void forward(const ForwardTask& t) {
  int64_t rows = t.m1 - t.m0;
  int64_t p = t.p0;
  if (rows <= 3) {
    const float* x = t.x + t.m0 * t.ldx;
    float* y = t.y + t.m0 * t.ldy;
    const int64_t wide = rows == 1 ? 4 : 2;
    for (; p + wide <= t.p1 && (p + wide) * NR <= t.n; p += wide) {
      if (t.bf16)
        (rows == 1   ? few_rows<1, true>
         : rows == 2 ? few_rows<2, true>
                     : few_rows<3, true>)(x, t.ldx, t.panels, t.k, p, y, t.ldy);
      else
        (rows == 1   ? few_rows<1, false>
         : rows == 2 ? few_rows<2, false>
                     : few_rows<3, false>)(x, t.ldx, t.panels, t.k, p, y, t.ldy);
      for (int64_t q = p; q < p + wide; q++)
        if (t.adapter || t.bias)
          routed_tile(rows, NR, nullptr, 0, nullptr, 0, true, t.adapter ? t.adapter + t.m0 : nullptr, t.lora,
                      t.u + t.m0 * t.ldu, t.ldu, q * NR, y + q * NR, t.ldy, true, t.bias ? t.bias + q * NR : nullptr);
    }
  }
  for (int64_t k0 = 0; k0 < t.k || k0 == 0; k0 += BLOCK) {
    int64_t kk = min64(BLOCK, t.k - k0);
    bool last = k0 + kk >= t.k;
    for (int64_t q = p; q < t.p1; q++) {
      const float* b = forward_block(t.panels, t.bf16, t.k, q, k0, kk, t.scratch);
      int64_t n = min64(NR, t.n - q * NR);
      for (int64_t m = t.m0, mr; m < t.m1; m += mr) {
        mr = tile_rows(t.m1 - m);
        routed_tile(mr, n, t.x + m * t.ldx + k0, t.ldx, b, kk, last, t.adapter ? t.adapter + m : nullptr, t.lora,
                    t.u + m * t.ldu, t.ldu, q * NR, t.y + m * t.ldy + q * NR, t.ldy, k0 > 0,
                    t.bias ? t.bias + q * NR : nullptr);
      }
    }
  }
}

void backward(const BackwardTask& t) {
  bool started = t.accumulate;
  for (int64_t i = 0; i < t.module_count; i++) {
    const BackwardModule& w = t.modules[i];
    for (int64_t n0 = 0; n0 < w.n; n0 += BLOCK) {
      int64_t nn = min64(BLOCK, w.n - n0);
      bool last = i + 1 == t.module_count && n0 + nn >= w.n;
      for (int64_t q = t.q0; q < t.q1; q++) {
        transposed_block(w.panels, t.bf16, t.k, q * NR, n0, nn, t.scratch);
        int64_t n = min64(NR, t.k - q * NR);
        for (int64_t m = t.m0, mr; m < t.m1; m += mr) {
          mr = tile_rows(t.m1 - m);
          routed_tile(mr, n, t.dy + m * t.lddy + w.column + n0, t.lddy, t.scratch, nn, last,
                      t.adapter ? t.adapter + m : nullptr, t.lora, t.du + m * t.lddu, t.lddu, q * NR,
                      t.dx + m * t.lddx + q * NR, t.lddx, started, nullptr);
        }
      }
      started = true;
    }
  }
}

void narrow(const NarrowTask& t) {
  float c[MR * NR];
  for (int64_t r = 0; r < t.count; r += MR) {
    int64_t mr = min64(MR, t.count - r);
    const int32_t* rows = t.rows + r;
    const float* x = t.x + rows[0] * t.ldx;
    int64_t ldx = t.ldx;
    if (rows[mr - 1] - rows[0] != mr - 1) {  // spans of other roles lie between: gather, 1 / e of the product's cost
      for (int64_t i = 0; i < mr; i++) __builtin_memcpy(t.scratch + i * t.k, t.x + rows[i] * t.ldx, uint64_t(t.k) * 4);
      x = t.scratch;
      ldx = t.k;
    }
    for (int64_t j = 0; j < t.e;) {
      bool wide = t.ldp - j >= NR && t.e - j > LANES;
      int64_t w = wide ? NR : LANES;
      (wide ? Tiles<NV, false>::at[mr] : Tiles<1, false>::at[mr])(x, ldx, t.p + j, t.ldp, t.k, nullptr, 0, nullptr, 0,
                                                                  0, c, NR, false, nullptr);
      for (int64_t i = 0; i < mr; i++)
        for (int64_t n = 0; n < min64(w, t.e - j); n++) t.out[rows[i] * t.ldo + j + n] = c[i * NR + n] * t.scale;
      j += w;
    }
  }
}

/// c [mr, NR] = the chain over `count` rows of p[row, :mr]^T q[row, :NR]: the rows listed, or, where packed, all in
/// order.
template <int mr, bool packed>
NOINLINE void outer_tile(const float* p, int64_t ldp, const float* q, int64_t ldq, const int32_t* rows, int64_t count,
                         float* c) {
  vf acc[mr][NV];
  EACH (i, mr)
    EACH (j, NV) acc[i][j] = vf{};
  for (int64_t s = 0; s < count; s++) {
    const float* a = packed ? p + s * MR : p + rows[s] * ldp;
    const float* b = packed ? q + s * NR : q + rows[s] * ldq;
    vf bv[NV];
    EACH (j, NV) bv[j] = load(b + j * LANES);
    EACH (i, mr) {
      vf x = splat(a[i]);
      EACH (j, NV) acc[i][j] = fma(x, bv[j], acc[i][j]);
    }
  }
  EACH (i, mr)
    EACH (j, NV) store(c + i * NR + j * LANES, acc[i][j]);
}

typedef void (*OuterFn)(const float*, int64_t, const float*, int64_t, const int32_t*, int64_t, float*);
template <bool packed>
struct Outer {
  // As Tiles: entries beyond MR are never asked for.
  static constexpr int clip(int m) { return m < MR ? m : MR; }
  static constexpr OuterFn at[13] = {nullptr,
                                     outer_tile<clip(1), packed>,
                                     outer_tile<clip(2), packed>,
                                     outer_tile<clip(3), packed>,
                                     outer_tile<clip(4), packed>,
                                     outer_tile<clip(5), packed>,
                                     outer_tile<clip(6), packed>,
                                     outer_tile<clip(7), packed>,
                                     outer_tile<clip(8), packed>,
                                     outer_tile<clip(9), packed>,
                                     outer_tile<clip(10), packed>,
                                     outer_tile<clip(11), packed>,
                                     outer_tile<clip(12), packed>};
};

/// g [mr, nn] += c, in f64.
INLINE void add_tile(double* g, int64_t ldg, const float* c, int64_t mr, int64_t nn) {
  for (int64_t i = 0; i < mr; i++)
    for (int64_t j = 0; j < nn; j++) g[i * ldg + j] += double(c[i * NR + j]);
}

/// Listed rows of x, columns [c0, c1), as panels of `width` columns: [panel][row][width], zero beyond c1.
INLINE void pack_rows(float* to, const float* x, int64_t ldx, int64_t c0, int64_t c1, const int32_t* rows,
                      int64_t count, int64_t width) {
  int64_t panels = (c1 - c0 + width - 1) / width;
  for (int64_t s = 0; s < count; s++) {
    const float* from = x + rows[s] * ldx;
    for (int64_t i = 0; i < panels; i++) {
      float* panel = to + (i * count + s) * width;
      int64_t n = min64(width, c1 - c0 - i * width);
      if (n == width)
        __builtin_memcpy(panel, from + c0 + i * width, uint64_t(width) * 4);
      else
        for (int64_t j = 0; j < width; j++) panel[j] = j < n ? from[c0 + i * width + j] : 0;
    }
  }
}

int64_t gradient_scratch(int64_t rows, int64_t m, int64_t n) { return rows * (m + MR + n + NR); }

// Reads NR columns of q even where fewer exist: backend memory ends with slack.
void gradient(const GradientTask& t) {
  float c[MR * NR];
  const bool pack = t.scratch != nullptr;
  for (int64_t s = 0; s < t.sequences; s++) {
    const int32_t* rows = t.rows + t.cuts[s];
    const int64_t count = t.cuts[s + 1] - t.cuts[s];
    float* q = t.scratch;
    float* p = pack ? q + count * ((t.n1 - t.n0 + NR - 1) / NR * NR) : nullptr;
    if (pack) {
      pack_rows(q, t.q, t.ldq, t.n0, t.n1, rows, count, NR);
      pack_rows(p, t.p, t.ldp, t.m0, t.m1, rows, count, MR);
    }
    for (int64_t n = t.n0; n < t.n1; n += NR)
      for (int64_t m = t.m0; m < t.m1; m += MR) {
        int64_t mr = min64(MR, t.m1 - m);
        if (pack)
          Outer<true>::at[mr](p + (m - t.m0) * count, 0, q + (n - t.n0) * count, 0, nullptr, count, c);
        else
          Outer<false>::at[mr](t.p + m, t.ldp, t.q + n, t.ldq, rows, count, c);
        add_tile(t.g + m * t.ldg + n, t.ldg, c, mr, min64(NR, t.n1 - n));
      }
  }
}

void column_sum(double* g, const float* x, int64_t ldx, int64_t n0, int64_t n1, const int32_t* rows,
                const int32_t* cuts, int64_t sequences) {
  for (int64_t s = 0; s < sequences; s++)
    for (int64_t n = n0; n < n1; n++) {
      float sum = 0;
      for (int64_t i = cuts[s]; i < cuts[s + 1]; i++) sum += x[rows[i] * ldx + n];
      g[n] += double(sum);
    }
}
