// Attention over pages of 64 keys: keys lie transposed in a page ([d][64]), so that one query's scores are a product
// with the vector across keys; values lie as rows ([64][ldv]). A row's sums never depend on the rows beside it (design
// rules: splits of 512 keys, 16-lane sums, one chain over keys).

int64_t attention_scratch(int64_t d) { return kAttentionRows * (2 * ((d + 15) / 16 * 16) + kKeySplit + 2) + 64; }

/// p = exp(s - max) over n scores in place; returns their sum in the 16-lane order.
INLINE float softmax_row(float* s, int64_t n, float* max_out) {
  float tail[16];
  vf part[P16];
  for (int i = 0; i < P16; i++) part[i] = splat(-__builtin_inff());
  int64_t whole = n / 16 * 16;
  for (int64_t j = 0; j < whole; j += 16)
    for (int i = 0; i < P16; i++) part[i] = max(load(s + j + i * LANES), part[i]);
  load_tail(tail, s + whole, n - whole, -__builtin_inff());
  for (int i = 0; i < P16; i++) part[i] = max(load(tail + i * LANES), part[i]);
  float m = tree_max(part);
  vf mv = splat(m);
  for (int i = 0; i < P16; i++) part[i] = vf{};
  for (int64_t j = 0; j < whole; j += 16)
    for (int i = 0; i < P16; i++) {
      vf p = exp(load(s + j + i * LANES) - mv);
      store(s + j + i * LANES, p);
      part[i] = part[i] + p;
    }
  for (int i = 0; i < P16; i++) {
    vf p = exp(load(tail + i * LANES) - mv);
    store(tail + i * LANES, p);
    part[i] = part[i] + p;
  }
  for (int64_t j = whole; j < n; j++) s[j] = tail[j - whole];
  *max_out = m;
  return tree_sum(part);
}

/// What is read next, and fetched meanwhile: `floats` of each of k rows. Into L2, as more lines can be on their way
/// there than to L1.
struct Ahead {
  const float* at;
  int64_t stride, floats;
};

/// c [mr, nv vectors] (+)= a [mr, k] b [k, :] for few rows, which wait for b.
template <int mr, int nv>
NOINLINE void narrow_tile(const float* a, int64_t as, const float* b, int64_t ldb, int64_t k, float* c, int64_t ldc,
                          bool add, Ahead ahead) {
  vf acc[mr][nv];
  EACH (i, mr)
    EACH (j, nv) acc[i][j] = add ? load(c + i * ldc + j * LANES) : vf{};
  for (int64_t s = 0; s < k; s++) {
    vf bv[nv];
    EACH (j, nv) bv[j] = load(b + s * ldb + j * LANES);
    for (int64_t j = 0; j < ahead.floats; j += 16) __builtin_prefetch(ahead.at + s * ahead.stride + j, 0, 2);
    EACH (i, mr) {
      vf x = splat(a[i * as + s]);
      EACH (j, nv) acc[i][j] = fma(x, bv[j], acc[i][j]);
    }
  }
  EACH (i, mr)
    EACH (j, nv) store(c + i * ldc + j * LANES, acc[i][j]);
}

/// Rows that narrow_tile takes at once, with 4 vectors each.
constexpr int64_t kFewRows = 4;

/// c [m, n] (+)= a [m, k] b [k, n], n a multiple of LANES.
INLINE void narrow_gemm(int64_t m, int64_t n, int64_t k, const float* a, int64_t as, const float* b, int64_t ldb,
                        float* c, int64_t ldc, bool add, Ahead ahead) {
  typedef void (*Fn)(const float*, int64_t, const float*, int64_t, int64_t, float*, int64_t, bool, Ahead);
  static constexpr Fn at[4][4] = {{narrow_tile<1, 1>, narrow_tile<2, 1>, narrow_tile<3, 1>, narrow_tile<4, 1>},
                                  {narrow_tile<1, 2>, narrow_tile<2, 2>, narrow_tile<3, 2>, narrow_tile<4, 2>},
                                  {narrow_tile<1, 3>, narrow_tile<2, 3>, narrow_tile<3, 3>, narrow_tile<4, 3>},
                                  {narrow_tile<1, 4>, narrow_tile<2, 4>, narrow_tile<3, 4>, narrow_tile<4, 4>}};
  for (int64_t j = 0; j < n;) {
    const int64_t nv = min64(4, (n - j) / LANES);
    for (int64_t i = 0; i < m; i += kFewRows)
      at[nv - 1][min64(kFewRows, m - i) - 1](a + i * as, as, b + j, ldb, k, c + i * ldc + j, ldc, add,
                                             i + j > 0 ? Ahead{} : ahead);
    j += nv * LANES;
  }
}

/// Queries that see the same keys, few of them: decoding. Page by page, and the next keys or values fetched meanwhile.
INLINE void few_queries_split(const AttentionTask& t, int64_t base, const float* q, float* o, float* s, float* part_max,
                              float* part_sum) {
  const int64_t d = t.head_dim, dp = (d + 15) / 16 * 16, keys = min64(kKeySplit, t.bounds[0] - base);
  auto page = [&](int64_t j) { return t.pages[(base + j) / kPage] * t.page_stride; };
  auto on_page = [&](int64_t j) { return min64(kPage, keys - j); };
  // `rows` of keys or values over so many steps.
  auto spread = [](const float* at, int64_t rows, int64_t ld, int64_t floats, int64_t steps) {
    const int64_t each = (rows + steps - 1) / steps;
    return Ahead{at, each * ld, (each - 1) * ld + floats};
  };
  auto keys_ahead = [&](const float* at, int64_t n, int64_t steps) {
    return spread(at, d, kPage, (n + 15) / 16 * 16, steps);
  };
  auto values_ahead = [&](int64_t j, int64_t steps) { return spread(t.v + page(j), on_page(j), t.ldv, t.ldv, steps); };
  for (int64_t j = 0, next; j < keys; j = next) {
    next = j + kPage;
    narrow_gemm(t.count, (on_page(j) + LANES - 1) / LANES * LANES, d, q, dp, t.k + page(j), kPage, s + j, kKeySplit,
                false, next < keys ? keys_ahead(t.k + page(next), on_page(next), d) : values_ahead(0, d));
  }
  for (int64_t i = 0; i < t.count; i++) part_sum[i] = softmax_row(s + i * kKeySplit, keys, &part_max[i]);
  for (int64_t j = 0, next; j < keys; j = next) {
    next = j + kPage;
    narrow_gemm(t.count, dp, on_page(j), s + j, kKeySplit, t.v + page(j), t.ldv, o, dp, j > 0,
                next < keys ? values_ahead(next, on_page(j)) : keys_ahead(t.next, t.next_keys, on_page(j)));
  }
}

void attention(const AttentionTask& t) {
  const int64_t d = t.head_dim, dp = (d + 15) / 16 * 16;
  float* q = t.scratch;
  float* o = q + kAttentionRows * dp;
  float* s = o + kAttentionRows * dp;
  float* run_max = s + kAttentionRows * kKeySplit;
  float* run_sum = run_max + kAttentionRows;
  const int64_t most = t.bounds[t.count - 1];
  const bool few = t.decode && t.count <= 2 * kFewRows;
  for (int64_t i = 0; i < t.count; i++)
    for (int64_t c = 0; c < d; c++) q[i * dp + c] = t.q[i * t.ldq + c] * t.scale;

  for (int64_t base = 0; base < most; base += kKeySplit) {
    int64_t first = 0;  // bounds do not decrease: rows before `first` see nothing of this split
    while (t.bounds[first] <= base) first++;
    int64_t keys = min64(kKeySplit, most - base);
    int64_t rows = t.count - first;
    float part_max[kAttentionRows], part_sum[kAttentionRows];
    if (few) {
      few_queries_split(t, base, q, o, s, part_max, part_sum);
    } else {
      for (int64_t j = 0; j < keys; j += kPage) {
        const float* k = t.k + t.pages[(base + j) / kPage] * t.page_stride;
        small_gemm<false>(rows, kPage, d, q + first * dp, dp, k, kPage, s + first * kKeySplit + j, kKeySplit, false);
      }
      for (int64_t i = first; i < t.count; i++)
        part_sum[i] = softmax_row(s + i * kKeySplit, min64(kKeySplit, t.bounds[i] - base), &part_max[i]);
    }
    for (int64_t i = few ? t.count : first; i < t.count; i += MR) {
      int64_t mr = min64(MR, t.count - i);
      // Keys that every row of the tile sees, then each row's own rest: a key beyond a row's bound is never multiplied.
      int64_t common = min64(kKeySplit, t.bounds[i] - base);
      for (int64_t j = 0; j < common; j += kPage) {
        const float* v = t.v + t.pages[(base + j) / kPage] * t.page_stride;
        small_gemm<false>(mr, dp, min64(kPage, common - j), s + i * kKeySplit + j, kKeySplit, v, t.ldv, o + i * dp, dp,
                          j > 0);
      }
      for (int64_t r = i; r < i + mr; r++) {
        int64_t own = min64(kKeySplit, t.bounds[r] - base);
        for (int64_t j = common; j < own;) {
          int64_t page = (base + j) / kPage, at = (base + j) % kPage, n = min64(kPage - at, own - j);
          const float* v = t.v + t.pages[page] * t.page_stride + at * t.ldv;
          small_gemm<false>(1, dp, n, s + r * kKeySplit + j, kKeySplit, v, t.ldv, o + r * dp, dp, true);
          j += n;
        }
      }
    }
    for (int64_t i = first; i < t.count; i++) {
      float* out = t.out + i * t.ldo;
      const float* part = o + i * dp;
      if (base == 0) {
        for (int64_t c = 0; c < d; c++) out[c] = part[c];
        run_max[i] = part_max[i];
        run_sum[i] = part_sum[i];
      } else {
        float m = part_max[i] > run_max[i] ? part_max[i] : run_max[i];
        float w[16] = {run_max[i] - m, part_max[i] - m};
        for (int k = 0; k < P16; k++) store(w + k * LANES, exp(load(w + k * LANES)));
        for (int64_t c = 0; c < d; c++) out[c] = __builtin_fmaf(part[c], w[1], out[c] * w[0]);
        run_sum[i] = __builtin_fmaf(part_sum[i], w[1], run_sum[i] * w[0]);
        run_max[i] = m;
      }
    }
  }
  for (int64_t i = 0; i < t.count; i++) {
    for (int64_t c = 0; c < d; c++) t.out[i * t.ldo + c] /= run_sum[i];
    if (t.lse) t.lse[i * t.ldl] = run_max[i] + float(math::log(double(run_sum[i])));
  }
}

constexpr int64_t kBlockRows = 64;

int64_t attention_backward_scratch(int64_t count, int64_t d) {
  int64_t dp = (d + 15) / 16 * 16, padded = (count + kPage - 1) / kPage * kPage;
  return 2 * padded * dp + kBlockRows * (2 * dp + 3 * kPage + 1) + padded + padded / kPage + 64;
}

/// Scores are recomputed from q and the pages; p = exp(s - lse). Chains run over keys (dq) and over queries (dk, dv),
/// both increasing, head after head of the group.
void attention_backward(const AttentionBackwardTask& t) {
  const int64_t d = t.head_dim, dp = (d + 15) / 16 * 16;
  const int64_t blocks = (t.count + kPage - 1) / kPage, padded = blocks * kPage;
  float* krow = t.scratch;          // [padded][dp]
  float* vt = krow + padded * dp;   // per page [d][64]
  float* q = vt + padded * dp;      // [64][dp], scaled
  float* dq = q + kBlockRows * dp;  // [64][dp]
  float* p = dq + kBlockRows * dp;  // [64][64]
  float* ds = p + kBlockRows * kPage;
  float* dsm = ds + kBlockRows * kPage;  // ds without pairs of two roles
  float* delta = dsm + kBlockRows * kPage;
  float* role = delta + kBlockRows;  // [padded], NaN beyond the sequence
  float* page_role = role + padded;  // [blocks], NaN where the positions of a page differ
  for (int64_t b = 0; b < blocks; b++) {
    const float* kt = t.k + t.pages[b] * t.page_stride;
    const float* v = t.v + t.pages[b] * t.page_stride;
    int64_t n = min64(kPage, t.count - b * kPage);
    for (int64_t j = 0; t.roles && j < kPage; j++)
      role[b * kPage + j] = j < n ? float(t.roles[b * kPage + j]) : __builtin_nanf("");
    page_role[b] = t.roles ? role[b * kPage] : 0;
    for (int64_t j = 1; t.roles && j < n; j++)
      if (role[b * kPage + j] != page_role[b]) page_role[b] = __builtin_nanf("");
    for (int64_t j = 0; j < kPage; j++)
      for (int64_t c = 0; c < dp; c++) {
        bool real = j < n && c < d;  // beyond the sequence a page may hold anything
        krow[(b * kPage + j) * dp + c] = real ? kt[c * kPage + j] : 0;
        if (c < d) vt[b * kPage * dp + c * kPage + j] = real ? v[j * t.ldv + c] : 0;
      }
  }
  for (int64_t j = 0; j < t.count; j++)
    for (int64_t c = 0; c < d; c++) t.dk[j * t.lddk + c] = t.dv[j * t.lddv + c] = 0;

  for (int64_t h = 0; h < t.group; h++) {
    for (int64_t i0 = 0; i0 < t.count; i0 += kBlockRows) {
      if (t.stop && __atomic_load_n(t.stop, __ATOMIC_RELAXED)) return;
      int64_t rows = min64(kBlockRows, t.count - i0);
      const float* dout = t.dout + i0 * t.lddo + h * d;
      for (int64_t i = 0; i < rows; i++) {
        const float* out = t.out + (i0 + i) * t.ldo + h * d;
        float sum = 0;
        for (int64_t c = 0; c < d; c++) {
          q[i * dp + c] = t.q[(i0 + i) * t.ldq + h * d + c] * t.scale;
          sum = __builtin_fmaf(dout[i * t.lddo + c], out[c], sum);
        }
        for (int64_t c = d; c < dp; c++) q[i * dp + c] = 0;
        delta[i] = sum;
      }
      for (int64_t j0 = 0; j0 <= i0; j0 += kPage) {
        int64_t keys = min64(kPage, t.count - j0);
        // "stop" selects pair by pair in blocks of several roles; of blocks that are not, it takes all or nothing.
        const float query_role = page_role[i0 / kPage], key_role = page_role[j0 / kPage];
        const bool whole = query_role == key_role;
        const bool mixed = !whole && !(query_role == query_role && key_role == key_role);
        small_gemm<false>(rows, kPage, d, q, dp, t.k + t.pages[j0 / kPage] * t.page_stride, kPage, p, kPage, false);
        small_gemm<false>(rows, kPage, d, dout, t.lddo, vt + j0 * dp, kPage, ds, kPage, false);
        for (int64_t i = 0; i < rows; i++) {
          float* pi = p + i * kPage;
          float* di = ds + i * kPage;
          vf lse = splat(t.lse[(i0 + i) * t.ldl + h]), dl = splat(delta[i]);
          for (int64_t j = 0; j < kPage; j += LANES) {
            vf w = exp(load(pi + j) - lse);
            vf g = w * (load(di + j) - dl);
            store(di + j, g);
            if (mixed) {
              vi same = load(role + j0 + j) == splat(role[i0 + i]);
              w = same ? w : vf{};
              store(dsm + i * kPage + j, same ? g : vf{});
            }
            store(pi + j, w);
          }
          for (int64_t j = i0 + i - j0 + 1 > 0 ? i0 + i - j0 + 1 : 0; j < kPage; j++)
            pi[j] = di[j] = dsm[i * kPage + j] = 0;
        }
        small_gemm<false>(rows, dp, keys, ds, kPage, krow + j0 * dp, dp, dq, dp, j0 > 0);
        if (!whole && !mixed) continue;
        const float* dk = mixed ? dsm : ds;
        if (d == dp) {
          small_gemm<true>(keys, d, rows, p, kPage, dout, t.lddo, t.dv + j0 * t.lddv, t.lddv, true);
          small_gemm<true>(keys, d, rows, dk, kPage, q, dp, t.dk + j0 * t.lddk, t.lddk, true);
        } else {
          for (int64_t j = 0; j < keys; j++)
            for (int64_t i = 0; i < rows; i++)
              for (int64_t c = 0; c < d; c++) {
                float* dvp = t.dv + (j0 + j) * t.lddv + c;
                float* dkp = t.dk + (j0 + j) * t.lddk + c;
                *dvp = __builtin_fmaf(p[i * kPage + j], dout[i * t.lddo + c], *dvp);
                *dkp = __builtin_fmaf(dk[i * kPage + j], q[i * dp + c], *dkp);
              }
        }
      }
      for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < d; c++) t.dq[(i0 + i) * t.lddq + h * d + c] = dq[i * dp + c] * t.scale;
    }
  }
}
