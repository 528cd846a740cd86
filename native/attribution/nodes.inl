// The characteristic function of posterior.cc at kNodes nodes. Included by kernels.inl.

/// factor [count]: R_m at the nodes for m = used[0] < used[1] < ..; weight [kNodes].
void node_factors(NodeRow* factor, double* weight, const std::int32_t* used, std::size_t count, const NodeGrid& grid) {
  constexpr std::size_t kVectors = kNodes / kReals;
  constexpr double kPi = 3.141592653589793116;
  Real re[kVectors], im[kVectors], t[kVectors];
  for (std::size_t v = 0; v < kVectors; ++v) {
    for (std::size_t l = 0; l < kReals; ++l)
      t[v][l] = (static_cast<double>(grid.first + v * kReals + l) + 0.5) * grid.step;
    // 1 / sqrt(cosh(pi t)) or sqrt(pi t / sinh(pi t)), without overflow.
    const Real e = exp_of(-2 * kPi * t[v]), square = grid.uniform ? 2 * kPi * t[v] / (1 - e) : 2 / (1 + e);
    re[v] = exp_of(-kPi / 2 * t[v]) * root_of(square);
    im[v] = Real{};
    store(weight + v * kReals, grid.step / (kPi * t[v]));
  }
  std::int32_t m = 0;
  for (std::size_t i = 0; i < count; ++i) {
    for (; m < used[i]; ++m) {
      const double step = 1 / (m + grid.added);
      for (std::size_t v = 0; v < kVectors; ++v) {
        const Real tau = t[v] * step, x = re[v], y = im[v];
        re[v] = x - y * tau;
        im[v] = y + x * tau;
      }
    }
    for (std::size_t v = 0; v < kVectors; ++v) {
      store(factor[i].data() + v * kReals, re[v]);
      store(factor[i].data() + kNodes + v * kReals, im[v]);
    }
  }
}

/// row [cells] = R_k conj R_{n-k}: of[2 i] and of[2 i + 1] are the factors of cell i.
void node_rows(NodeRow* row, const NodeRow* factor, const std::uint32_t* of, std::size_t cells) {
  for (std::size_t i = 0; i < cells; ++i) {
    const double *right = factor[of[2 * i]].data(), *wrong = factor[of[2 * i + 1]].data();
    for (std::size_t j = 0; j < kNodes; j += kReals) {
      const Real a = load(right + j), b = load(right + kNodes + j), c = load(wrong + j), d = load(wrong + kNodes + j);
      store(row[i].data() + j, a * c + b * d);
      store(row[i].data() + kNodes + j, b * c - a * d);
    }
  }
}

double node_sum(const double* base, const double* unified, const double* tool, const double* reas, const double* weight,
                double& last) {
  constexpr std::size_t kVectors = 64 / VECTOR_BYTES;
  Real sums[kVectors] = {}, re = {}, im = {};
  for (std::size_t j = 0; j < kNodes; j += 8)
    for (std::size_t v = 0; v < kVectors; ++v) {
      const std::size_t at = j + v * kReals;
      const auto conjugated = [&](const double* cell) {
        const Real x = re, c = load(cell + at), d = load(cell + kNodes + at);
        re = x * c + im * d;
        im = im * c - x * d;
      };
      const Real x = load(base + at), y = load(base + kNodes + at), c = load(unified + at),
                 d = load(unified + kNodes + at);
      re = x * c - y * d;
      im = x * d + y * c;
      conjugated(tool);
      conjugated(reas);
      sums[v] += load(weight + at) * im;
    }
  last = std::abs(re[kReals - 1]) + std::abs(im[kReals - 1]);
  double lanes[8], total = 0;
  std::memcpy(lanes, sums, sizeof lanes);
  for (const double lane : lanes) total += lane;
  return total;
}
