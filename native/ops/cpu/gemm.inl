// Matrix kernels. Every output element is one chain of fused multiply-adds over k in increasing order, so that neither
// the tile's shape nor blocking changes a bit: blocks of k leave the sums in y and take them up again.

/// c [mr, nv * LANES] = (add ? c : 0) + a [mr, k] b [k, :] + u [mr, e] l [e, :] + bias.
struct TileTask {
  const float* a;
  int64_t as;
  const float* b;
  int64_t ldb, k;
  float* c;
  int64_t ldc;
  bool add;
  const float* bias;  // or null
  const float* u;
  int64_t us;
  const float* l;
  int64_t ldl, e;
  const int32_t *rows, *to;  // those of a and u, and those of c
  const char* ahead;         // what is read next
  int64_t lines;             // of 64 bytes of it, at most k
};

/// `ta`: a is stored [k, mr]. `fetch`: lines of what is read next are fetched meanwhile, and those of c before they are
/// written.
template <int mr, int nv, bool ta, bool fetch = false>
NOINLINE void tile(const TileTask& t) {
  const float *a = t.a, *b = t.b;
  vf acc[mr][nv];
  {
    float* const c = t.c;
    const int64_t ldc = t.ldc;
    if (t.add) {
      EACH (i, mr)
        EACH (j, nv) acc[i][j] = load(c + t.to[i] * ldc + j * LANES);
    } else {
      EACH (i, mr)
        EACH (j, nv) acc[i][j] = vf{};
      if constexpr (fetch) {
        EACH (i, mr)
          EACH (j, nv) __builtin_prefetch(c + t.to[i] * ldc + j * LANES, 1);
      }
    }
  }
  {
    const int64_t as = t.as, ldb = t.ldb;
    int64_t at[mr];
    EACH (i, mr) at[i] = ta ? i : t.rows[i] * as;
    const char* ahead = t.ahead;
    int64_t lines = t.lines;
    for (int64_t s = t.k; s > 0; s--) {
      if constexpr (fetch) {
        __builtin_prefetch(ahead, 0, 2);
        ahead += --lines > 0 ? 64 : 0;
      }
      vf bv[nv];
      EACH (j, nv) bv[j] = load(b + j * LANES);
      b += ldb;
      EACH (i, mr) {
        vf x = splat(a[at[i]]);
        EACH (j, nv) acc[i][j] = fma(x, bv[j], acc[i][j]);
      }
      a += ta ? as : 1;
    }
  }
  if (t.e > 0) {
    const float *u = t.u, *l = t.l;
    const int64_t us = t.us, ldl = t.ldl;
    for (int64_t s = 0; s < t.e; s++) {
      vf bv[nv];
      EACH (j, nv) bv[j] = load(l + j * LANES);
      l += ldl;
      EACH (i, mr) {
        vf x = splat(u[t.rows[i] * us + s]);
        EACH (j, nv) acc[i][j] = fma(x, bv[j], acc[i][j]);
      }
    }
  }
  if (t.bias) {
    EACH (j, nv) {
      vf bv = load(t.bias + j * LANES);
      EACH (i, mr) acc[i][j] = acc[i][j] + bv;
    }
  }
  float* const c = t.c;
  const int64_t ldc = t.ldc;
  EACH (i, mr)
    EACH (j, nv) store(c + t.to[i] * ldc + j * LANES, acc[i][j]);
}

typedef void (*TileFn)(const TileTask&);
/// A table of 1 .. 12 rows; entries beyond MR are never asked for.
constexpr int at_most_mr(int rows) { return rows < MR ? rows : MR; }
#define BY_ROWS(name, ...)                          \
  {nullptr,                                         \
   name<at_most_mr(1) __VA_OPT__(, ) __VA_ARGS__>,  \
   name<at_most_mr(2) __VA_OPT__(, ) __VA_ARGS__>,  \
   name<at_most_mr(3) __VA_OPT__(, ) __VA_ARGS__>,  \
   name<at_most_mr(4) __VA_OPT__(, ) __VA_ARGS__>,  \
   name<at_most_mr(5) __VA_OPT__(, ) __VA_ARGS__>,  \
   name<at_most_mr(6) __VA_OPT__(, ) __VA_ARGS__>,  \
   name<at_most_mr(7) __VA_OPT__(, ) __VA_ARGS__>,  \
   name<at_most_mr(8) __VA_OPT__(, ) __VA_ARGS__>,  \
   name<at_most_mr(9) __VA_OPT__(, ) __VA_ARGS__>,  \
   name<at_most_mr(10) __VA_OPT__(, ) __VA_ARGS__>, \
   name<at_most_mr(11) __VA_OPT__(, ) __VA_ARGS__>, \
   name<at_most_mr(12) __VA_OPT__(, ) __VA_ARGS__>}
template <int nv, bool ta, bool fetch = false>
constexpr TileFn kTiles[13] = BY_ROWS(tile, nv, ta, fetch);

/// c [m, n] (+)= a b for n a multiple of LANES: the small products of attention.
template <bool ta>
INLINE void small_gemm(int64_t m, int64_t n, int64_t k, const float* a, int64_t as, const float* b, int64_t ldb,
                       float* c, int64_t ldc, bool add) {
  for (int64_t j = 0; j < n;) {
    bool wide = n - j >= NR;
    for (int64_t i = 0; i < m; i += MR) {
      int64_t mr = min64(MR, m - i);
      TileTask t{};
      t.a = a + (ta ? i : i * as), t.as = as;
      t.b = b + j, t.ldb = ldb, t.k = k;
      t.c = c + i * ldc + j, t.ldc = ldc, t.add = add;
      t.rows = t.to = kInOrder;
      (wide ? kTiles<NV, ta> : kTiles<1, ta>)[mr](t);
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

/// Columns [c0, c0 + NR) of w for its rows n0 .. n0 + nn, as [nn, NR]: a transposed block of the forward panels.
/// n0 is a multiple of LANES; up to LANES - 1 rows beyond nn are written.
template <bool bf16>
NOINLINE void transposed_panels(const void* panels, int64_t k, int64_t c0, int64_t n0, int64_t nn, float* scratch) {
  int64_t columns = min64(NR, k - c0);
  for (int64_t n = n0; n < n0 + nn; n += LANES) {
    int64_t at = (n / NR * k + c0) * NR + n % NR;
    float* to = scratch + (n - n0) * NR;
    for (int64_t c = 0; c < columns; c += LANES) {
      vf r[LANES];
      EACH (i, LANES) {
        int64_t from = at + (c + i) * NR;
        if (c + i >= columns)
          r[i] = vf{};
        else
          r[i] = bf16 ? widen((const uint16_t*)panels + from) : load((const float*)panels + from);
      }
      transpose(r);
      EACH (i, LANES) store(to + i * NR + c, r[i]);
    }
  }
}

INLINE void transposed_block(const void* panels, bool bf16, int64_t k, int64_t c0, int64_t n0, int64_t nn,
                             float* scratch) {
  (bf16 ? transposed_panels<true> : transposed_panels<false>)(panels, k, c0, n0, nn, scratch);
}

/// A tile of which n columns exist; where they do not fill a panel, through a buffer, so that nothing beyond is
/// written.
INLINE void panel_tile(int64_t mr, int64_t n, const TileTask& t) {
  if (n == NR) return (t.lines > 0 ? kTiles<NV, false, true> : kTiles<NV, false>)[mr](t);
  float buffer[MR * NR];
  float* const c = t.c;
  auto row = [&](int64_t i) { return c + t.to[i] * t.ldc; };
  for (int64_t i = 0; i < mr; i++)
    for (int64_t j = 0; j < NR; j++) buffer[i * NR + j] = t.add && j < n ? row(i)[j] : 0;
  TileTask inner = t;
  inner.c = buffer;
  inner.ldc = NR;
  inner.to = kInOrder;
  kTiles<NV, false>[mr](inner);
  for (int64_t i = 0; i < mr; i++)
    for (int64_t j = 0; j < n; j++) row(i)[j] = buffer[i * NR + j];
}

/// Steps of a block of k: near BLOCK and about equal, so that none is left with a short one. At most MAX_BLOCK.
INLINE int64_t block_steps(int64_t k) {
  int64_t blocks = (k + BLOCK / 2) / BLOCK;
  return blocks <= 1 ? MAX_BLOCK : ((k + blocks - 1) / blocks + 15) / 16 * 16;
}

/// Rows [m0, m1) of the order through one panel of n columns. `t`: as for row 0; where `last`, the low-rank part and
/// the bias end the chains. before_tile(task) is called for each tile.
template <class F>
INLINE void panel_rows(int64_t m0, int64_t m1, int64_t n, const Routing& routing, bool last, TileTask t, int64_t column,
                       F before_tile) {
  const float *a = t.a, *u = t.u;
  float* c = t.c;
  if (!last) t.bias = nullptr;
  for_each_tile(m0, m1, routing, [&](int64_t m, int64_t mr, const LowRank* part) {
    before_tile(t);
    t.e = last && part ? part->e : 0;
    if (t.e > 0) t.l = part->l + column, t.ldl = part->ldl, t.u = u + part->u_column;
    t.rows = t.to = routing.order ? routing.order + m : kInOrder;
    if (!routing.order) t.a = a + m * t.as, t.c = c + m * t.ldc;
    panel_tile(mr, n, t);
  });
}

/// mr <= 3 rows, PW panels side by side: one panel alone would wait for its own chain (decode).
template <int mr, bool bf16>
NOINLINE void few_rows(const int32_t* rows, const float* x, int64_t ldx, const void* panels, int64_t k, int64_t p,
                       float* y, int64_t ldy) {
  constexpr int PW = mr == 1 ? 4 : 2;
  const float* xr[mr];
  EACH (i, mr) xr[i] = x + rows[i] * ldx;
  vf acc[mr][PW][NV];
  EACH (i, mr)
    EACH (q, PW)
      EACH (j, NV) acc[i][q][j] = vf{};
  for (int64_t s = 0; s < k; s++) {
    EACH (q, PW)
      EACH (j, NV) {
        int64_t at = ((p + q) * k + s) * NR + j * LANES;
        vf b = bf16 ? widen((const uint16_t*)panels + at) : load((const float*)panels + at);
        EACH (i, mr) acc[i][q][j] = fma(splat(xr[i][s]), b, acc[i][q][j]);
      }
  }
  EACH (i, mr)
    EACH (q, PW)
      EACH (j, NV) store(y + rows[i] * ldy + (p + q) * NR + j * LANES, acc[i][q][j]);
}

/// Rows of a task up to which the panel that comes next is fetched: a step of decoding.
constexpr int64_t FETCH_ROWS = 96;

void forward(const ForwardTask& t) {
  const int64_t rows = t.m1 - t.m0;
  const Routing routing{t.order, t.adapter, t.lora};
  TileTask tile{};
  tile.as = t.ldx, tile.ldb = NR, tile.ldc = t.ldy, tile.u = t.u, tile.us = t.ldu;
  int64_t p = t.p0;
  if (rows <= 3) {
    const int32_t* list = t.order ? t.order + t.m0 : kInOrder;
    const float* x = t.x + (t.order ? 0 : t.m0 * t.ldx);
    float* y = t.y + (t.order ? 0 : t.m0 * t.ldy);
    auto* few = t.bf16 ? (rows == 1   ? few_rows<1, true>
                          : rows == 2 ? few_rows<2, true>
                                      : few_rows<3, true>)
                       : (rows == 1   ? few_rows<1, false>
                          : rows == 2 ? few_rows<2, false>
                                      : few_rows<3, false>);
    const int64_t wide = rows == 1 ? 4 : 2;
    for (; p + wide <= t.p1 && (p + wide) * NR <= t.n; p += wide) {
      few(list, x, t.ldx, t.panels, t.k, p, y, t.ldy);
      tile.add = true;
      for (int64_t q = p; q < p + wide && (t.order || t.bias); q++) {
        tile.a = t.x, tile.c = t.y + q * NR, tile.bias = t.bias ? t.bias + q * NR : nullptr;
        panel_rows(t.m0, t.m1, NR, routing, true, tile, q * NR, [](TileTask&) {});
      }
    }
  }
  const int64_t steps = block_steps(t.k), tiles = (rows + MR - 1) / MR, width = t.bf16 ? 2 : 4;
  for (int64_t k0 = 0; k0 < t.k || k0 == 0; k0 += steps) {
    const int64_t kk = min64(steps, t.k - k0);
    const bool last = k0 + kk >= t.k;
    tile.a = t.x + k0, tile.k = kk, tile.add = k0 > 0;
    for (int64_t q = p; q < t.p1; q++) {
      // With few rows the first tile of a panel would wait for it: it is fetched bit by bit during the tiles before.
      const char* ahead = q + 1 < t.p1 ? (const char*)t.panels + ((q + 1) * t.k + k0) * NR * width
                                       : (const char*)(last ? t.next : nullptr);
      int64_t left = ahead && rows <= FETCH_ROWS ? kk * NR * width / 64 : 0;
      const int64_t each = min64(kk, (left + tiles - 1) / tiles);
      tile.b = forward_block(t.panels, t.bf16, t.k, q, k0, kk, t.scratch);
      tile.c = t.y + q * NR, tile.bias = t.bias ? t.bias + q * NR : nullptr;
      panel_rows(t.m0, t.m1, min64(NR, t.n - q * NR), routing, last, tile, q * NR, [&](TileTask& tt) {
        tt.ahead = ahead, tt.lines = min64(each, left);
        ahead += tt.lines * 64, left -= tt.lines;
      });
    }
  }
}

void backward(const BackwardTask& t) {
  const Routing routing{t.order, t.adapter, t.lora};
  TileTask tile{};
  tile.as = t.lddy, tile.b = t.scratch, tile.ldb = NR, tile.ldc = t.lddx, tile.u = t.du, tile.us = t.lddu;
  tile.add = t.accumulate;
  for (int64_t i = 0; i < t.module_count; i++) {
    const BackwardModule& w = t.modules[i];
    const int64_t steps = block_steps(w.n);
    for (int64_t n0 = 0; n0 < w.n; n0 += steps) {
      const int64_t nn = min64(steps, w.n - n0);
      const bool last = i + 1 == t.module_count && n0 + nn >= w.n;
      tile.a = t.dy + w.column + n0, tile.k = nn;
      for (int64_t q = t.q0; q < t.q1; q++) {
        transposed_block(w.panels, t.bf16, t.k, q * NR, n0, nn, t.scratch);
        tile.c = t.dx + q * NR;
        // The next block lies in short pieces, one a panel, that no hardware prefetcher foresees: it is fetched bit by
        // bit while this one is used.
        const int64_t width = t.bf16 ? 2 : 4, piece = q + 1 < t.q1 ? min64(NR, t.k - (q + 1) * NR) * NR * width : 0;
        const int64_t all = (nn + NR - 1) / NR * piece, tiles = (t.m1 - t.m0 + MR - 1) / MR;
        const int64_t step = (all / 64 + tiles - 1) / tiles * 64;
        const char* next = (const char*)w.panels + (n0 / NR * t.k + (q + 1) * NR) * NR * width;
        int64_t ahead = 0;
        panel_rows(t.m0, t.m1, min64(NR, t.k - q * NR), routing, last, tile, q * NR, [&](TileTask&) {
          for (const int64_t end = min64(ahead + step, all); ahead < end; ahead += 64)
            __builtin_prefetch(next + ahead / piece * t.k * NR * width + ahead % piece, 0, 2);
        });
      }
      tile.add = true;
    }
  }
}

#if LANES == 16
typedef float half __attribute__((vector_size(32), aligned(4), may_alias));

INLINE half fma(half a, half b, half c) {
  half r;
  for (int i = 0; i < 8; i++) r[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return r;
}

/// c [mr, 8] = a [mr, k] b [k, :]: ranks up to 8 would leave half of a vector unused.
template <int mr>
NOINLINE void half_tile(const TileTask& t) {
  const float *a = t.a, *b = t.b;
  const int64_t ldb = t.ldb, k = t.k;
  half acc[mr];
  int64_t at[mr];
  EACH (i, mr) {
    acc[i] = half{};
    at[i] = t.rows[i] * t.as;
  }
  for (int64_t s = 0; s < k; s++) {
    const half bv = *(const half*)b;
    b += ldb;
    EACH (i, mr) {
      acc[i] = fma(a[at[i]] - half{}, bv, acc[i]);
    }
    a++;
  }
  EACH (i, mr) *(half*)(t.c + i * t.ldc) = acc[i];
}
constexpr TileFn kHalfTiles[13] = BY_ROWS(half_tile);
#endif

void narrow(const NarrowTask& t) {
  float c[MR * NR];
  TileTask tile{};
  tile.a = t.x, tile.as = t.ldx, tile.ldb = t.ldp, tile.k = t.k, tile.c = c, tile.ldc = NR, tile.to = kInOrder;
  for (int64_t r = 0, mr; r < t.count; r += mr) {
    mr = tile_rows(t.count - r);
    tile.rows = t.rows + r;
    for (int64_t j = 0; j < t.e;) {
      // A narrower vector after a whole one, rather than a second that is half empty.
      const bool wide = t.ldp - j >= NR && t.e - j > (LANES == 16 ? 24 : LANES);
      const int64_t w = wide ? NR : LANES;
      tile.b = t.p + j;
#if LANES == 16
      if (t.e - j <= 8)
        kHalfTiles[mr](tile);
      else
#endif
        (wide ? kTiles<NV, false> : kTiles<1, false>)[mr](tile);
      for (int64_t i = 0; i < mr; i++)
        for (int64_t n = 0; n < min64(w, t.e - j); n++) t.out[t.rows[r + i] * t.ldo + j + n] = c[i * NR + n] * t.scale;
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
constexpr OuterFn kOuter[13] = BY_ROWS(outer_tile, packed);

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

/// c [mr, NR] (+)= the chain over the listed rows of p[row, :mr]^T q[row, :NR]. The same number of rows of `next` is
/// fetched meanwhile.
template <int mr>
NOINLINE void thin_tile(const float* p, int64_t ldp, const float* q, int64_t ldq, const int32_t* rows, int64_t count,
                        float* c, int64_t ldc, bool add, const float* next, const int32_t* next_rows) {
  vf acc[mr][NV];
  EACH (i, mr)
    EACH (j, NV) acc[i][j] = add ? load(c + i * ldc + j * LANES) : vf{};
  for (int64_t s = 0; s < count; s++) {
    const float* a = p + rows[s] * ldp;
    const float* b = q + rows[s] * ldq;
    vf bv[NV];
    EACH (j, NV) bv[j] = load(b + j * LANES);
    for (int j = 0; j < NR; j += 16) __builtin_prefetch(next + next_rows[s] * ldq + j, 0, 2);
    EACH (i, mr) {
      vf x = splat(a[i]);
      EACH (j, NV) acc[i][j] = fma(x, bv[j], acc[i][j]);
    }
  }
  EACH (i, mr)
    EACH (j, NV) store(c + i * ldc + j * LANES, acc[i][j]);
}

typedef void (*ThinFn)(const float*, int64_t, const float*, int64_t, const int32_t*, int64_t, float*, int64_t, bool,
                       const float*, const int32_t*);
constexpr ThinFn kThin[13] = BY_ROWS(thin_tile);

/// Few rows of g, a pair's: to pack q would cost as much as the products. Some rows of q at a time, for all columns of
/// the task, with the sums kept between: so q is read once and from the cache the columns after it.
INLINE void thin_gradient(const GradientTask& t) {
  constexpr int64_t kRows = 32;
  const int64_t m = t.m1 - t.m0, n = t.n1 - t.n0, ldc = (n + NR - 1) / NR * NR;
  float* c = t.scratch;
  for (int64_t s = 0; s < t.sequences; s++) {
    const int32_t* rows = t.rows + t.cuts[s];
    const int64_t count = t.cuts[s + 1] - t.cuts[s];
    if (count == 0) continue;
    for (int64_t r = 0; r < count; r += kRows) {
      const int64_t some = min64(kRows, count - r);
      for (int64_t j = 0; j < n; j += NR) {
        const bool more = j + NR < n, rest = count - r >= 2 * kRows;
        const float* next = t.q + t.n0 + (more ? j + NR : 0);
        const int32_t* next_rows = rows + r + (!more && rest ? kRows : 0);
        for (int64_t i = 0; i < m; i += MR)
          kThin[min64(MR, m - i)](t.p + t.m0 + i, t.ldp, t.q + t.n0 + j, t.ldq, rows + r, some, c + i * ldc + j, ldc,
                                  r > 0, next, next_rows);
      }
    }
    for (int64_t i = 0; i < m; i++) {
      double* g = t.g + (t.m0 + i) * t.ldg + t.n0;
      for (int64_t j = 0; j < n; j++) g[j] += double(c[i * ldc + j]);
    }
  }
}

int64_t gradient_scratch(int64_t rows, int64_t m, int64_t n) {
  return m <= kThinRows ? m * (n + NR) : rows * (m + MR + n + NR);
}

// Reads NR columns of q even where fewer exist: backend memory ends with slack.
void gradient(const GradientTask& t) {
  if (t.m1 - t.m0 <= kThinRows && t.scratch) return thin_gradient(t);
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
          kOuter<true>[mr](p + (m - t.m0)* count, 0, q + (n - t.n0)* count, 0, nullptr, count, c);
        else
          kOuter<false>[mr](t.p + m, t.ldp, t.q + n, t.ldq, rows, count, c);
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
