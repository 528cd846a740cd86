// Draws of additive effects and of counts under them. Included by kernels.inl.

/// A float from integers below 2^52.
Real real_of(Word x) {
  x |= 0x4330000000000000u;
  Real value;
  std::memcpy(&value, &x, sizeof value);
  return value - 0x1p52;
}

/// log(x) for normal x > 0, to 1e-15.
Real log_of(Real x) {
  Word bits;
  std::memcpy(&bits, &x, sizeof bits);
  Real power = real_of(bits >> 52) - 1023;
  bits = (bits & 0x000fffffffffffffu) | 0x3ff0000000000000u;
  Real m;
  std::memcpy(&m, &bits, sizeof m);
  const Long large = m > 1.4142135623730951;
  m = pick(large, m / 2, m);
  power = pick(large, power + 1, power);
  // log m = 2 atanh(f), |f| <= 0.1716: terms to f^19, what is left is below 1e-17.
  const Real f = (m - 1) / (m + 1), g = f * f;
  Real sum = Real{} + 1.0 / 19;
  for (int i = 17; i >= 1; i -= 2) sum = sum * g + 1.0 / i;
  return power * 0.6931471805599453 + 2 * f * sum;
}

/// normal_quantile of p between 2^-33 and 1 - 2^-33.
Real normal_quantile_of(Real p) {
  const Real q = p - 0.5;
  const Long below = q < 0;
  Real r = 0.180625 - q * q;
  const Real middle = q * (((59.109374720 * r + 159.29113202) * r + 50.434271938) * r + 3.3871327179) /
                      (((67.187563600 * r + 78.757757664) * r + 17.895169469) * r + 1);
  r = root_of(-log_of(pick(below, p, 1 - p))) - 1.6;
  const Real tail = (((0.17023821103 * r + 1.3067284816) * r + 2.7568153900) * r + 1.4234372777) /
                    ((0.12021132975 * r + 0.73700164250) * r + 1);
  return pick(pick(below, -q, q) <= 0.425, middle, pick(below, -tail, tail));
}

/// philox (core/random.h) of several counters, a word of 32 bits in each lane.
struct Words {
  Word x[4];
};
Words philox_of(Word counter, const NullDrawKey& own) {
  constexpr std::uint64_t kLow = 0xffffffffu;
  Words c = {{counter, Word{} + own.question, Word{} + own.stream, Word{}}};
  std::uint32_t k0 = static_cast<std::uint32_t>(own.seed), k1 = static_cast<std::uint32_t>(own.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const Word p0 = c.x[0] * 0xD2511F53u, p1 = c.x[2] * 0xCD9E8D57u;
    c = {{(p1 >> 32) ^ c.x[1] ^ k0, p1 & kLow, (p0 >> 32) ^ c.x[3] ^ k1, p0 & kLow}};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

void null_draws(double* theta, double* level, std::size_t count, const NullDrawKey& key, const double* mean,
                const double* root) {
  const auto unit = [](Word word) { return (real_of(word) + 0.5) * 0x1p-32; };
  for (std::size_t i = 0; i < count; i += kReals) {
    Word counter;
    for (std::size_t l = 0; l < kReals; ++l) counter[l] = static_cast<std::uint32_t>(2 * (key.first + i + l));
    const Words normals = philox_of(counter, key), levels = philox_of(counter + 1, key);
    Real z[3], phi[3];
    for (std::size_t a = 0; a < 3; ++a) {
      z[a] = normal_quantile_of(unit(normals.x[a]));
      phi[a] = Real{} + mean[a];
      for (std::size_t b = 0; b <= a; ++b) phi[a] += root[at(a, b)] * z[b];
    }
    store(theta + i, phi[0]);
    store(theta + count + i, phi[0] + phi[1]);
    store(theta + 2 * count + i, phi[0] + phi[2]);
    store(theta + 3 * count + i, (phi[0] + phi[1]) + phi[2]);
    for (std::size_t v = 0; v < 4; ++v) store(level + v * count + i, unit(levels.x[v]));
  }
}

/// kDraws of `binomials`: several vectors at once, so that none waits for its own products.
template <std::size_t kDraws>
void binomials_of(std::int32_t* k, const double* theta, const double* u, std::int32_t n, const double* ratio) {
  constexpr std::size_t kVectors = kDraws / kReals;
  Real odds[kVectors], mass[kVectors], sum[kVectors], level[kVectors];
  Long above[kVectors], found[kVectors];
  for (std::size_t v = 0; v < kVectors; ++v) {
    Real t = load(theta + v * kReals);
    const Real own = load(u + v * kReals);
    above[v] = t > 0;
    t = pick(above[v], -t, t);
    odds[v] = exp_below(pick(t < -700, Real{} - 700, t));
    level[v] = pick(above[v], 1 - own, own);
    found[v] = Long{};
  }
  Real base[kVectors];
  for (std::size_t v = 0; v < kVectors; ++v) {
    base[v] = 1 / (1 + odds[v]);
    mass[v] = Real{} + 1.0;
  }
  for (std::int32_t rest = n; rest > 0; rest >>= 1)
    for (std::size_t v = 0; v < kVectors; ++v) {
      if (rest & 1) mass[v] *= base[v];
      base[v] *= base[v];
    }
  for (std::size_t v = 0; v < kVectors; ++v) sum[v] = mass[v];
  for (std::int32_t j = 0; j < n;) {
    Long any = {};
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
    const Long own = (found[v] & ~above[v]) | ((n - found[v]) & above[v]);
    for (std::size_t l = 0; l < kReals; ++l) k[v * kReals + l] = static_cast<std::int32_t>(own[l]);
  }
}

void binomials(std::int32_t* k, const double* theta, const double* u, std::size_t count, std::int32_t n,
               const double* ratio) {
  std::size_t i = 0;
  for (; i + 16 <= count; i += 16) binomials_of<16>(k + i, theta + i, u + i, n, ratio);
  if (i < count) binomials_of<8>(k + i, theta + i, u + i, n, ratio);
}
