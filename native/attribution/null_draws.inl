// Draws of additive effects and of counts under them. Included by kernels.inl.
//
// In f32: the null's figures are means of some thousands of draws, good to 1e-3 or so, and twice as many lanes fit a
// vector. A probability of a draw is off by 3e-5 or so at most.

typedef float Float __attribute__((vector_size(VECTOR_BYTES)));
typedef std::int32_t Int __attribute__((vector_size(VECTOR_BYTES)));
typedef std::uint32_t Bits __attribute__((vector_size(VECTOR_BYTES)));
typedef float HalfFloat __attribute__((vector_size(VECTOR_BYTES / 2)));

template <class To, class From>
To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
Float pick(Int mask, Float yes, Float no) {
  return same_bits<Float>((same_bits<Int>(yes) & mask) | (same_bits<Int>(no) & ~mask));
}
bool any_of(Int mask) { return any_of(same_bits<Long>(mask)); }

/// exp(x) for -80 <= x <= 0, to 1e-7 (relative).
Float exp_below(Float x) {
  constexpr float kMagic = 0x1.8p23f, kLog2e = 1.44269504f, kLn2Hi = 0.693359375f, kLn2Lo = -2.12194440e-4f;
  const Float shifted = x * kLog2e + kMagic;  // the nearest integer is in the low bits
  const Float n = shifted - kMagic;
  const Float r = (x - n * kLn2Hi) - n * kLn2Lo;
  constexpr float kInverse[] = {1.0f, 1.0f, 1.0f / 2, 1.0f / 6, 1.0f / 24, 1.0f / 120};
  Float p = Float{} + 1.0f / 720;
  for (int i = 5; i >= 0; --i) p = p * r + kInverse[i];
  return p * same_bits<Float>((same_bits<Int>(shifted) + 127) << 23);
}

/// log(x) for normal x > 0, to 1e-7.
Float log_of(Float x) {
  const Int bits = same_bits<Int>(x);
  Float power = __builtin_convertvector((bits >> 23) - 127, Float);
  Float m = same_bits<Float>((bits & 0x007fffff) | 0x3f800000);
  const Int large = m > 1.41421356f;
  m = pick(large, m / 2, m);
  power = pick(large, power + 1, power);
  // log m = 2 atanh(f), |f| <= 0.1716: what is left out is below 2e-8.
  const Float f = (m - 1) / (m + 1), g = f * f;
  const Float sum = ((g * (1.0f / 7) + 1.0f / 5) * g + 1.0f / 3) * g + 1;
  return power * 0.693147181f + 2 * f * sum;
}

/// Quantile of the standard normal distribution, to some 1e-6: sqrt 2 times Giles's approximation of the inverse error
/// function (GPU Computing Gems, 2011), for u a multiple of 2^-24.
Float normal_quantile_of(Float u) {
  const Float x = 2 * u - 1, w = -log_of(4 * u * (1 - u));
  constexpr float kMiddle[] = {2.81022636e-08f, 3.43273939e-07f, -3.5233877e-06f, -4.39150654e-06f, 0.00021858087f,
                               -0.00125372503f, -0.00417768164f, 0.246640727f,    1.50140941f};
  constexpr float kTail[] = {-0.000200214257f, 0.000100950558f, 0.00134934322f, -0.00367342844f, 0.00573950773f,
                             -0.0076224613f,   0.00943887047f,  1.00167406f,    2.83297682f};
  Float p = Float{} + kMiddle[0];
  for (std::size_t i = 1; i < 9; ++i) p = p * (w - 2.5f) + kMiddle[i];
  const Int far = w >= 5.0f;
  if (any_of(far)) {  // one draw in 300
    Float root = w;
    for (std::size_t l = 0; l < sizeof(Float) / sizeof(float); ++l) root[l] = __builtin_sqrtf(root[l]);
    Float q = Float{} + kTail[0];
    for (std::size_t i = 1; i < 9; ++i) q = q * (root - 3) + kTail[i];
    p = pick(far, q, p);
  }
  return 1.41421356f * x * p;
}

void null_draws(float* theta, float* level, std::size_t count, CountStream& stream, const float* mean,
                const float* root) {
  constexpr std::size_t kVectors = 64 / VECTOR_BYTES, kFloats = VECTOR_BYTES / sizeof(float), kTogether = 16;
  Generators<kVectors> generators(stream);
  const auto put = [](float* to, Float value) { std::memcpy(to, &value, sizeof value); };
  // Odd multiples of 2^-24: 1 - u is exact.
  const auto unit = [](Word word) {
    return (__builtin_convertvector(same_bits<Int>(same_bits<Bits>(word) >> 9), Float) + 0.5f) * 0x1p-23f;
  };
  for (std::size_t i = 0; i < count; i += kTogether) {
    Word words[7][kVectors];
    for (auto& sixteen : words) {
      for (std::size_t v = 0; v < kVectors; ++v) sixteen[v] = generators.next(v);
      ++generators.counter;
    }
    for (std::size_t v = 0; v < kVectors; ++v) {
      Float z[3], phi[3];
      for (std::size_t a = 0; a < 3; ++a) {
        z[a] = normal_quantile_of(unit(words[a][v]));
        phi[a] = Float{} + mean[a];
        for (std::size_t b = 0; b <= a; ++b) phi[a] += root[at(a, b)] * z[b];
      }
      const std::size_t to = i + v * kFloats;
      put(theta + to, phi[0]);
      put(theta + count + to, phi[0] + phi[1]);
      put(theta + 2 * count + to, phi[0] + phi[2]);
      put(theta + 3 * count + to, (phi[0] + phi[1]) + phi[2]);
      for (std::size_t c = 0; c < 4; ++c) put(level + c * count + to, unit(words[3 + c][v]));
    }
  }
  generators.store(stream);
}

/// What binomials are computed in: f32, or f64 where the first term would be too small for it.
template <class Vector>
struct Lanes;
template <>
struct Lanes<Float> {
  using Mask = Int;
  static constexpr std::size_t kCount = VECTOR_BYTES / sizeof(float);
  static constexpr float kLeast = -80;
  static Float load(const float* from) {
    Float value;
    std::memcpy(&value, from, sizeof value);
    return value;
  }
};
template <>
struct Lanes<Real> {
  using Mask = Long;
  static constexpr std::size_t kCount = kReals;
  static constexpr double kLeast = -700;
  static Real load(const float* from) {
    HalfFloat value;
    std::memcpy(&value, from, sizeof value);
    return __builtin_convertvector(value, Real);
  }
};

/// kDraws of `binomials`: several vectors at once, so that none waits for its own products.
template <class Vector, std::size_t kDraws>
void binomials_of(std::int32_t* k, const float* theta, const float* u, std::int32_t n, const float* ratio) {
  using Own = Lanes<Vector>;
  using Mask = typename Own::Mask;
  constexpr std::size_t kVectors = kDraws / Own::kCount;
  // The terms' sum is 1 to n roundings of f32 (2e-5 for 120): a level above it would count all n.
  constexpr float kMost = 1 - 0x1p-15f;
  Vector odds[kVectors], mass[kVectors], sum[kVectors], level[kVectors], base[kVectors];
  Mask above[kVectors], found[kVectors];
  for (std::size_t v = 0; v < kVectors; ++v) {
    Vector t = Own::load(theta + v * Own::kCount);
    const Vector own = Own::load(u + v * Own::kCount);
    above[v] = t > 0;
    t = pick(above[v], -t, t);
    odds[v] = exp_below(pick(t < Own::kLeast, Vector{} + Own::kLeast, t));
    level[v] = pick(above[v], 1 - own, own);
    level[v] = pick(level[v] > kMost, Vector{} + kMost, level[v]);
    base[v] = 1 / (1 + odds[v]);
    mass[v] = Vector{} + 1;
    found[v] = Mask{};
  }
  for (std::int32_t rest = n; rest > 0; rest >>= 1)
    for (std::size_t v = 0; v < kVectors; ++v) {
      if (rest & 1) mass[v] *= base[v];
      if (rest > 1) base[v] *= base[v];
    }
  for (std::size_t v = 0; v < kVectors; ++v) sum[v] = mass[v];
  for (std::int32_t j = 0; j < n;) {
    Mask any = {};
    for (std::size_t v = 0; v < kVectors; ++v) any |= sum[v] <= level[v];
    if (!any_of(any)) break;
    for (const std::int32_t end = n - j < 4 ? n : j + 4; j < end; ++j)
      for (std::size_t v = 0; v < kVectors; ++v) {
        found[v] -= sum[v] <= level[v];
        mass[v] *= odds[v] * ratio[j];
        sum[v] += mass[v];
      }
  }
  for (std::size_t v = 0; v < kVectors; ++v) {
    const Mask own = (found[v] & ~above[v]) | ((n - found[v]) & above[v]);
    for (std::size_t l = 0; l < Own::kCount; ++l) k[v * Own::kCount + l] = static_cast<std::int32_t>(own[l]);
  }
}

void binomials(std::int32_t* k, const float* theta, const float* u, std::size_t count, std::int32_t n,
               const float* ratio) {
  constexpr std::int32_t kNarrow = 120;  // (1/2)^120 is normal in f32
  std::size_t i = 0;
  if (n <= kNarrow) {
    for (; i + 32 <= count; i += 32) binomials_of<Float, 32>(k + i, theta + i, u + i, n, ratio);
    if (i < count) binomials_of<Float, 16>(k + i, theta + i, u + i, n, ratio);
  } else {
    for (; i < count; i += 16) binomials_of<Real, 16>(k + i, theta + i, u + i, n, ratio);
  }
}

void null_effects(float* lambda, std::int32_t* place, NullFree& free, const std::int32_t* k, std::size_t count,
                  std::size_t used, const NullQuestion& question) {
  // Small loops of one kind of number each, which compilers make vectors of.
  constexpr std::size_t kTogether = 128;
  std::int32_t open = 0, negative = 0;
  for (std::size_t first = 0; first < used; first += kTogether) {
    const std::size_t size = used - first < kTogether ? used - first : kTogether;
    const std::int32_t* cell[4];
    for (std::size_t v = 0; v < 4; ++v) cell[v] = k + v * count + first;
    double sum[kTogether];
    for (std::size_t i = 0; i < size; ++i)
      sum[i] =
          question.z[3][cell[3][i]] - question.z[2][cell[2][i]] - question.z[1][cell[1][i]] + question.z[0][cell[0][i]];
    std::int32_t step[kTogether];  // from 0
    for (std::size_t i = 0; i < size; ++i) {
      lambda[first + i] = static_cast<float>(sum[i]);
      // NullDistribution::bin of the float, from 1.
      double edge = __builtin_fabs(static_cast<double>(lambda[first + i])) * kNullBins - kNullEdge;
      edge = edge > 0 ? edge : 0;
      const auto whole = static_cast<std::int32_t>(edge);
      const std::int32_t bin = static_cast<double>(whole) < edge ? whole + 1 : whole > 0 ? whole : 1;
      const std::int32_t side = sum[i] < 0 ? -bin : bin;
      step[i] = __builtin_fabs(sum[i]) > kNullClear ? side : 0;
    }
    const std::int32_t answered = question.answered ? 1 : 0;
    std::int32_t any[kTogether], ends[kTogether];
    for (std::size_t i = 0; i < size; ++i) any[i] = answered, ends[i] = 1;
    for (std::size_t v = 0; v < 4; ++v)
      for (std::size_t i = 0; i < size; ++i) {
        const std::int32_t right = cell[v][i], wrong = question.n[v] - right;
        any[i] |= right;
        ends[i] = right == 0 ? ends[i] : wrong == 0 ? ends[i] : 0;
      }
    const std::int32_t zero = question.zero, dropped = question.dropped;
    for (std::size_t i = 0; i < size; ++i) {
      const std::int32_t is_free = any[i] != 0 ? 1 - ends[i] : 0;
      place[first + i] = any[i] != 0 ? zero + step[i] : dropped;
      open += is_free;
      negative += step[i] < 0 ? is_free : 0;
    }
  }
  free.all += open;
  free.negative += negative;
}
