// One source for every vector width (GCC/Clang vector extensions). Included inside a namespace of its own per
// instruction set. LANES, MR and NV come from the including file: a tile of MR rows x NV vectors keeps its sums in
// registers.

typedef float vf __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint16_t vh __attribute__((vector_size(LANES * 2), aligned(2), may_alias));
typedef uint32_t vu __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

/// Row reductions run over 16 lanes on every machine.
constexpr int P16 = 16 / LANES;

INLINE vf fma(vf a, vf b, vf c) {
  vf r;
  for (int i = 0; i < LANES; i++) r[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return r;
}
INLINE vf splat(float x) { return x - vf{}; }
INLINE vf load(const float* p) { return *(const vf*)p; }
INLINE void store(float* p, vf x) { *(vf*)p = x; }
INLINE vf max(vf a, vf b) { return a > b ? a : b; }
INLINE vf widen(const uint16_t* p) {
  vu bits = __builtin_convertvector(*(const vh*)p, vu) << 16;
  return (vf)bits;
}

/// exp in f32: exp(0) = 1, 0 below -87.3 (exp(-inf) = 0), NaN stays NaN; error below 1.2 ulp.
INLINE vf exp(vf x) {
  const vf low = splat(-87.3f), high = splat(88.7f);
  vf clamped = x < low ? low : x;
  clamped = clamped > high ? high : clamped;
  // Adding 1.5 * 2^23 rounds to an integer.
  const vf magic = splat(12582912.0f);
  vf shifted = fma(clamped, splat(1.44269504088896341f), magic);
  vf n = shifted - magic;
  vf r = fma(n, splat(-0.693145751953125f), clamped);
  r = fma(n, splat(-1.428606765330187e-06f), r);
  vf p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(p, r * r, r) + splat(1.0f);
  vi e = (__builtin_convertvector(n, vi) + 127) << 23;
  vf y = p * (vf)e;
  y = x < low ? vf{} : y;
  return x == x ? y : x;
}

/// Adds 16 partial sums in one fixed tree.
INLINE float tree_sum(const vf* part) {
  float t[16];
  for (int i = 0; i < P16; i++) store(t + i * LANES, part[i]);
  for (int w = 8; w >= 1; w /= 2)
    for (int i = 0; i < w; i++) t[i] += t[i + w];
  return t[0];
}
INLINE float tree_max(const vf* part) {
  float t[16];
  for (int i = 0; i < P16; i++) store(t + i * LANES, part[i]);
  float m = t[0];
  for (int i = 1; i < 16; i++) m = t[i] > m ? t[i] : m;
  return m;
}
/// Up to 15 elements, the rest `fill`: the last step of a row reduction.
INLINE void load_tail(float* to, const float* from, int64_t n, float fill) {
  for (int64_t i = 0; i < 16; i++) to[i] = i < n ? from[i] : fill;
}
