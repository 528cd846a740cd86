// Expectation propagation of eight questions at a time: what propagate() (question_posterior.h) does for one. Lanes do
// not depend on their neighbours: one that has converged stays as it is. Included by kernels.inl.

/// exp(x) with x cut to +-700.
Real exp_of(Real x) {
  x = pick(x > 700, Real{} + 700, x);
  return exp_below(pick(x < -700, Real{} - 700, x));
}
bool any_of(Long mask) {
  // By halves: lane by lane takes longer than what it is asked about.
  typedef std::uint64_t Two __attribute__((vector_size(16)));
  Two parts[VECTOR_BYTES / 16];
  std::memcpy(parts, &mask, sizeof mask);
  for (std::size_t i = 1; i < VECTOR_BYTES / 16; ++i) parts[0] |= parts[i];
  return (parts[0][0] | parts[0][1]) != 0;
}

/// Bits of the numbers of samples: base^n by squaring.
struct Samples {
  enum Use { kNone, kAll, kSome };
  Long bit[32];
  Use use[32];  // in most tables all lanes have the same number
  std::size_t bits = 0;

  explicit Samples(Real n) {
    for (Long rest = __builtin_convertvector(n, Long); any_of(rest) && bits < 32; rest >>= 1, ++bits) {
      bit[bits] = (rest & 1) == 1;
      use[bits] = !any_of(bit[bits]) ? kNone : !any_of(~bit[bits]) ? kAll : kSome;
    }
  }
  /// a^n and b^n
  void power(Real& a, Real& b) const {
    Real x = Real{} + 1.0, y = x;
    for (std::size_t i = 0; i < bits; ++i) {
      if (use[i] == kAll) {
        x *= a;
        y *= b;
      } else if (use[i] == kSome) {
        x = pick(bit[i], x * a, x);
        y = pick(bit[i], y * b, y);
      }
      a *= a;
      b *= b;
    }
    a = x;
    b = y;
  }
};

/// Moments of N(x; mean, variance) times the likelihood of k of n, by the trapezoid rule outwards from about the middle
/// `x0` in steps of 0.8 of about its standard deviation (at most 1/2), as far as 1e-9 of the whole: good to 1e-7 where
/// both are right within a third. Ratios of neighbours' densities change by a constant ratio; of their likelihoods the
/// n-th root does.
void tilt(const Samples& samples, Real share, Real mean, Real variance, Real x0, Real variance0, Real& tilted_mean,
          Real& tilted_variance) {
  const Real wide = 0.8 * root_of(variance0), h = pick(wide > 0.5, Real{} + 0.5, wide);
  const Real middle = exp_of(x0), up = exp_of(h), down = 1 / up, rise = exp_of(share * h), fall = 1 / rise;
  const Real scale = 0.5 / variance, offset = x0 - mean, shrink = exp_of(-2 * h * h * scale);
  Real step_a = exp_of(-h * (h + 2 * offset) * scale), step_b = exp_of(-h * (h - 2 * offset) * scale);
  Real density_a = Real{} + 1.0, density_b = density_a, odds_a = middle, odds_b = middle;
  Real power_a = 1 + middle, power_b = power_a, s0 = density_a, s1 = {}, s2 = {}, t = {};
  Long open_a = s0 > 0, open_b = open_a;
  for (int j = 1; j < 400; ++j) {
    t += 1.0;
    odds_a *= up, odds_b *= down;
    power_a *= rise, power_b *= fall;
    const Real up_a = 1 + odds_a, up_b = 1 + odds_b, both = 1 / (up_a * up_b);
    Real a = power_a * up_b * both, b = power_b * up_a * both;
    samples.power(a, b);
    density_a *= step_a, density_b *= step_b;
    step_a *= shrink, step_b *= shrink;
    a = pick(open_a, a * density_a, Real{});
    b = pick(open_b, b * density_b, Real{});
    s0 += a + b;
    s1 += t * (a - b);
    s2 += t * t * (a + b);
    const Real least = 1e-9 * s0;
    open_a &= a > least;
    open_b &= b > least;
    if (j % 2 == 0 && !any_of(open_a | open_b)) break;
  }
  const Real centre = s1 / s0, own = s2 / s0 - centre * centre;
  tilted_mean = x0 + h * centre;
  // Far narrower than the step: the next sweep's is finer.
  tilted_variance = h * h * pick(own < 0.0625, Real{} + 0.0625, own);
}

/// A normal density of phi that takes in factors of theta_v one by one.
template <std::size_t d>
struct Belief {
  static constexpr bool kRows[4][4] = {{1, 0, 0, 0}, {1, 1, 0, 0}, {1, 0, 1, 0}, {1, 1, 1, 1}};  // kEffectRows
  Real phi[d], covariance[d][d];

  /// covariance row_v, and mean and variance of theta_v.
  void along(std::size_t v, Real* g, Real& mean, Real& variance) const {
    mean = variance = Real{};
    for (std::size_t i = 0; i < d; ++i) {
      g[i] = covariance[i][0];
      for (std::size_t j = 1; j < d; ++j)
        if (kRows[v][j]) g[i] += covariance[i][j];
      if (kRows[v][i]) mean += phi[i], variance += g[i];
    }
  }
  /// Multiplies by exp(shift x - precision x^2 / 2), x = theta_v.
  void multiply(const Real* g, Real mean, Real variance, Real precision, Real shift) {
    const Real weight = 1 / (1 + precision * variance), move = (shift - precision * mean) * weight;
    const Real less = precision * weight;
    for (std::size_t i = 0; i < d; ++i) {
      phi[i] += g[i] * move;
      const Real scaled = less * g[i];
      for (std::size_t j = 0; j <= i; ++j) covariance[j][i] = covariance[i][j] -= scaled * g[j];
    }
  }
};

template <std::size_t d>
void propagate_lanes(const PopulationFrame& f, QuestionLanes& q, std::size_t lane, int sweeps, double tolerance) {
  Belief<d> belief;
  for (std::size_t i = 0; i < d; ++i) {
    belief.phi[i] = Real{} + f.mean[i];
    for (std::size_t j = 0; j <= i; ++j)
      belief.covariance[i][j] = belief.covariance[j][i] = Real{} + f.covariance[at(i, j)];
  }
  Real precision[4], shift[4], share[4], g[d], mean, variance;
  const Samples samples[4] = {Samples(load(&q.n[0][lane])), Samples(load(&q.n[1][lane])), Samples(load(&q.n[2][lane])),
                              Samples(load(&q.n[3][lane]))};
  for (std::size_t v = 0; v < 4; ++v) {
    precision[v] = load(&q.precision[v][lane]);
    shift[v] = load(&q.shift[v][lane]);
    const Real n = load(&q.n[v][lane]);
    share[v] = load(&q.k[v][lane]) / pick(n > 0, n, Real{} + 1.0);
    belief.along(v, g, mean, variance);
    belief.multiply(g, mean, variance, precision[v], shift[v]);
  }
  Long active = share[0] >= 0;
  for (int sweep = 0; sweep < sweeps && any_of(active); ++sweep) {
    Real moved = {};
    for (std::size_t v = 0; v < 4; ++v) {
      belief.along(v, g, mean, variance);
      const Real left = 1 - precision[v] * variance;  // of the precision, without this factor
      const Long valid = active & (variance > 1e-12) & (left > 1e-9);
      const Real part = 1 / left, own_variance = pick(valid, variance, Real{} + 1.0),
                 cavity_variance = pick(valid, variance * part, Real{} + 1.0),
                 cavity_mean = pick(valid, (mean - shift[v] * variance) * part, mean);
      Real tilted_mean, tilted_variance;
      tilt(samples[v], share[v], cavity_mean, cavity_variance, mean, own_variance, tilted_mean, tilted_variance);
      const Long usable = valid & (tilted_mean == tilted_mean) & (tilted_variance < 1e300);
      const Real cavity_precision = 1 / cavity_variance;
      Real next = 1 / tilted_variance - cavity_precision;
      next = pick(next > 0, next, Real{});
      const Real next_shift = tilted_mean * (cavity_precision + next) - cavity_mean * cavity_precision;
      Real far = tilted_mean - mean, wider = tilted_variance / own_variance - 1;
      far = pick(far < 0, -far, far) / root_of(tilted_variance);
      wider = pick(wider < 0, -wider, wider);
      far = pick(usable, pick(far > wider, far, wider), Real{} + 1.0);
      moved = pick(valid & (far > moved), far, moved);
      belief.multiply(g, mean, variance, pick(usable, next - precision[v], Real{}),
                      pick(usable, next_shift - shift[v], Real{}));
      precision[v] = pick(usable, next, precision[v]);
      shift[v] = pick(usable, next_shift, shift[v]);
    }
    active &= moved >= tolerance;
  }
  for (std::size_t v = 0; v < 4; ++v) {
    store(&q.precision[v][lane], precision[v]);
    store(&q.shift[v][lane], shift[v]);
  }
  for (std::size_t i = 0; i < d; ++i) {
    store(&q.mean[i][lane], belief.phi[i]);
    for (std::size_t j = 0; j <= i; ++j) store(&q.covariance[at(i, j)][lane], belief.covariance[i][j]);
  }
}

void propagate(const PopulationFrame& f, QuestionLanes* q, std::size_t groups, int sweeps, double tolerance) {
  for (std::size_t g = 0; g < groups; ++g)
    for (std::size_t lane = 0; lane < kLanes; lane += kReals)
      f.d == 4 ? propagate_lanes<4>(f, q[g], lane, sweeps, tolerance)
               : propagate_lanes<3>(f, q[g], lane, sweeps, tolerance);
}
