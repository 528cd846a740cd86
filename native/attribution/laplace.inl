// Laplace's approximation of eight questions at a time: what class Laplace (question_posterior.h) does for one. A
// lane's figures do not depend on its neighbours, nor on the width of a vector. Included by kernels.inl.

constexpr std::size_t kReals = VECTOR_BYTES / sizeof(double);

Real load(const double* from) {
  Real value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
void store(double* to, Real value) { std::memcpy(to, &value, sizeof value); }
Real root_of(Real x) {
  for (std::size_t l = 0; l < kReals; ++l) x[l] = __builtin_sqrt(x[l]);
  return x;
}

Real logistic_of(Real x) {
  const Long above = x > 0;
  const Real below = pick(above, -x, x), power = exp_below(pick(below < -700, Real{} - 700, below));
  const Real share = 1 / (1 + power);
  return pick(above, share, power * share);
}

constexpr std::size_t at(std::size_t i, std::size_t j) { return i * (i + 1) / 2 + j; }

/// A symmetric positive definite matrix as unit lower D unit lowerT.
template <std::size_t d>
struct Factored {
  Real lower[d * (d + 1) / 2], inverse[d];  // 1 / D

  explicit Factored(const Real* h) {
    Real scaled[d];
    for (std::size_t i = 0; i < d; ++i) {
      Real corner = h[at(i, i)];
      for (std::size_t j = 0; j < i; ++j) {
        Real sum = h[at(i, j)];
        for (std::size_t m = 0; m < j; ++m) sum -= scaled[m] * lower[at(j, m)];
        scaled[j] = sum;  // L_ij D_j
      }
      for (std::size_t j = 0; j < i; ++j) {
        lower[at(i, j)] = scaled[j] * inverse[j];
        corner -= scaled[j] * lower[at(i, j)];
      }
      inverse[i] = 1 / corner;
    }
  }
  void solve(Real* x) const {
    for (std::size_t i = 1; i < d; ++i)
      for (std::size_t j = 0; j < i; ++j) x[i] -= lower[at(i, j)] * x[j];
    for (std::size_t i = d; i-- > 0;) {
      x[i] *= inverse[i];
      for (std::size_t j = i + 1; j < d; ++j) x[i] -= lower[at(j, i)] * x[j];
    }
  }
  /// full [d, d]
  void invert(Real (*full)[d]) const {
    for (std::size_t i = 0; i < d; ++i) {
      Real x[d] = {};
      x[i] += 1;
      solve(x);
      for (std::size_t j = 0; j < d; ++j) full[i][j] = x[j];
    }
  }
};

template <std::size_t d>
void laplace_lanes(const PopulationFrame& f, QuestionLanes& q, std::size_t lane) {
  Real z[d], g[d], h[d * (d + 1) / 2], k[4], n[4], third[4], precision[4], shift[4], inverse[d][d];
  for (std::size_t i = 0; i < d; ++i) z[i] = load(&q.z[i][lane]);
  for (std::size_t v = 0; v < 4; ++v) k[v] = load(&q.k[v][lane]), n[v] = load(&q.n[v][lane]);
  for (int steps = 0;; ++steps) {
    for (std::size_t i = 0; i < d; ++i) {
      g[i] = -z[i];
      for (std::size_t j = 0; j <= i; ++j) h[at(i, j)] = Real{} + (i == j ? 1.0 : 0.0);
    }
    for (std::size_t v = 0; v < 4; ++v) {
      Real eta = Real{} + f.centre[v];
      for (std::size_t i = 0; i < d; ++i) eta += f.row[v][i] * z[i];
      const Real p = logistic_of(eta), residual = k[v] - n[v] * p, information = n[v] * p * (1 - p);
      third[v] = -information * (1 - 2 * p);
      precision[v] = information;
      shift[v] = residual + information * eta;
      for (std::size_t i = 0; i < d; ++i) {
        g[i] += f.row[v][i] * residual;
        const Real scaled = information * f.row[v][i];
        for (std::size_t j = 0; j <= i; ++j) h[at(i, j)] += scaled * f.row[v][j];
      }
    }
    const Factored<d> factored(h);
    factored.solve(g);
    Real length = {};
    for (std::size_t i = 0; i < d; ++i) length += g[i] * g[i];
    const Real scale = pick(length > 4, 2 / root_of(length), Real{} + 1);
    for (std::size_t i = 0; i < d; ++i) g[i] *= scale;
    const Long done = length < 1e-8;  // Newton: what is left after the last step is its square
    bool all = true;
    for (std::size_t l = 0; l < kReals; ++l) all = all && done[l] != 0;
    if (all || steps == 49) {
      factored.invert(inverse);
      break;
    }
    // Where nothing is left to do nothing moves, so that the same figures come out however long the others take.
    for (std::size_t i = 0; i < d; ++i) z[i] += pick(done, Real{}, g[i]);
  }
  for (std::size_t i = 0; i < d; ++i) {
    z[i] += g[i];
    store(&q.z[i][lane], z[i]);
  }
  for (std::size_t v = 0; v < 4; ++v) {
    store(&q.precision[v][lane], precision[v]);
    store(&q.shift[v][lane], shift[v]);
  }
  // mean = mode + S sum_v row_v l3_v (row_vT S row_v) / 2
  for (std::size_t v = 0; v < 4; ++v) {
    Real x[d], s = {};
    for (std::size_t i = 0; i < d; ++i) {
      x[i] = inverse[i][0] * f.row[v][0];
      for (std::size_t j = 1; j < d; ++j) x[i] += inverse[i][j] * f.row[v][j];
      s += x[i] * f.row[v][i];
    }
    s *= third[v] / 2;
    for (std::size_t i = 0; i < d; ++i) z[i] += s * x[i];
  }
  for (std::size_t i = 0; i < d; ++i) {
    Real mean = Real{} + f.mean[i], t[d] = {};
    for (std::size_t m = 0; m <= i; ++m) {
      const double r = f.root[at(i, m)];
      mean += r * z[m];
      for (std::size_t j = 0; j <= i; ++j) t[j] += r * inverse[m][j];
    }
    store(&q.mean[i][lane], mean);
    for (std::size_t j = 0; j <= i; ++j) {
      Real sum = {};
      for (std::size_t m = 0; m <= j; ++m) sum += t[m] * f.root[at(j, m)];
      store(&q.covariance[at(i, j)][lane], sum);
    }
  }
}

void laplace(const PopulationFrame& f, QuestionLanes* q, std::size_t groups) {
  for (std::size_t g = 0; g < groups; ++g)
    for (std::size_t lane = 0; lane < kLanes; lane += kReals)
      f.d == 4 ? laplace_lanes<4>(f, q[g], lane) : laplace_lanes<3>(f, q[g], lane);
}

/// matrix [parameters, parameters, kLanes]
template <std::size_t d>
void add_derivative(const PopulationFrame& f, const QuestionLanes& q, std::size_t lane, double* matrix) {
  constexpr std::size_t parameters = d + d * (d + 1) / 2;
  constexpr double kRows[4][4] = {{1, 0, 0, 0}, {1, 1, 0, 0}, {1, 0, 1, 0}, {1, 1, 1, 1}};  // kEffectRows
  Real z[d], h[d * (d + 1) / 2], k[4], n[4], p[4], information[4], third[4], fourth[4], s[4], S[d][d], x[4][d];
  for (std::size_t i = 0; i < d; ++i) {
    z[i] = load(&q.z[i][lane]);
    for (std::size_t j = 0; j <= i; ++j) h[at(i, j)] = Real{} + (i == j ? 1.0 : 0.0);
  }
  for (std::size_t v = 0; v < 4; ++v) {
    k[v] = load(&q.k[v][lane]), n[v] = load(&q.n[v][lane]);
    Real eta = Real{} + f.centre[v];
    for (std::size_t i = 0; i < d; ++i) eta += f.row[v][i] * z[i];
    p[v] = logistic_of(eta);
    information[v] = n[v] * p[v] * (1 - p[v]);
    third[v] = -information[v] * (1 - 2 * p[v]);
    fourth[v] = -information[v] * (1 - 6 * p[v] * (1 - p[v]));
    for (std::size_t i = 0; i < d; ++i) {
      const Real scaled = information[v] * f.row[v][i];
      for (std::size_t j = 0; j <= i; ++j) h[at(i, j)] += scaled * f.row[v][j];
    }
  }
  Factored<d>(h).invert(S);
  Real centre[d];
  for (std::size_t i = 0; i < d; ++i) centre[i] = z[i];
  for (std::size_t v = 0; v < 4; ++v) {
    s[v] = Real{};
    for (std::size_t i = 0; i < d; ++i) {
      x[v][i] = S[i][0] * f.row[v][0];
      for (std::size_t j = 1; j < d; ++j) x[v][i] += S[i][j] * f.row[v][j];
      s[v] += f.row[v][i] * x[v][i];
    }
    const Real move = third[v] * s[v] / 2;
    for (std::size_t i = 0; i < d; ++i) centre[i] += move * x[v][i];
  }
  // root S, and E(phi) - mean = root centre.
  Real spread[d][d], offset[d];
  for (std::size_t i = 0; i < d; ++i) {
    offset[i] = Real{};
    for (std::size_t j = 0; j < d; ++j) spread[i][j] = Real{};
    for (std::size_t m = 0; m <= i; ++m) {
      const double r = f.root[at(i, m)];
      offset[i] += r * centre[m];
      for (std::size_t j = 0; j < d; ++j) spread[i][j] += r * S[m][j];
    }
  }

  std::size_t a = 0;
  // The parameter is mean[of], or root[of, column]: then d row_v[column] = kEffectRows[v][of].
  const auto parameter = [&](bool is_mean, std::size_t of, std::size_t column) {
    Real along = Real{} + 1.0, g[d] = {}, dz[d], dS[d][d] = {}, e_third[4];
    if (!is_mean) along = z[column];
    for (std::size_t v = 0; v < 4; ++v) {
      if (kRows[v][of] == 0) continue;
      const Real weight = information[v] * along;
      for (std::size_t i = 0; i < d; ++i) g[i] -= weight * f.row[v][i];
      if (!is_mean) g[column] += k[v] - n[v] * p[v];
    }
    for (std::size_t i = 0; i < d; ++i) {
      dz[i] = S[i][0] * g[0];
      for (std::size_t j = 1; j < d; ++j) dz[i] += S[i][j] * g[j];
    }
    // dS = -S dH S: outer products of x_v and S d row_v.
    for (std::size_t v = 0; v < 4; ++v) {
      const bool own = kRows[v][of] != 0;
      Real deta = own ? along : Real{};
      for (std::size_t i = 0; i < d; ++i) deta += f.row[v][i] * dz[i];
      e_third[v] = fourth[v] * deta;
      const Real weight = third[v] * deta;
      for (std::size_t i = 0; i < d; ++i) {
        const Real left = weight * x[v][i];
        for (std::size_t j = 0; j <= i; ++j) dS[i][j] += left * x[v][j];
        if (!own || is_mean) continue;
        const Real one = information[v] * S[i][column], two = information[v] * x[v][i];
        for (std::size_t j = 0; j <= i; ++j) dS[i][j] -= one * x[v][j] + two * S[j][column];
      }
    }
    for (std::size_t i = 0; i < d; ++i)
      for (std::size_t j = 0; j < i; ++j) dS[j][i] = dS[i][j];
    Real dcentre[d];
    for (std::size_t i = 0; i < d; ++i) dcentre[i] = dz[i];
    for (std::size_t v = 0; v < 4; ++v) {
      const bool own = !is_mean && kRows[v][of] != 0;
      Real dx[d], ds = {};
      if (own) ds = 2 * x[v][column];
      for (std::size_t i = 0; i < d; ++i) {
        dx[i] = dS[i][0] * f.row[v][0];
        for (std::size_t j = 1; j < d; ++j) dx[i] += dS[i][j] * f.row[v][j];
        ds += f.row[v][i] * dx[i];
        if (own) dx[i] += S[i][column];
      }
      const Real slope = (e_third[v] * s[v] + third[v] * ds) / 2, level = third[v] * s[v] / 2;
      for (std::size_t i = 0; i < d; ++i) dcentre[i] += slope * x[v][i] + level * dx[i];
    }
    Real doffset[d];
    for (std::size_t i = 0; i < d; ++i) {
      doffset[i] = Real{};
      for (std::size_t m = 0; m <= i; ++m) doffset[i] += f.root[at(i, m)] * dcentre[m];
    }
    if (!is_mean) doffset[of] += centre[column];
    const auto add = [&](std::size_t row, Real value) {
      double* sum = matrix + (row * parameters + a) * kLanes + lane;
      store(sum, load(sum) + value);
    };
    for (std::size_t i = 0; i < d; ++i) {
      add(i, doffset[i]);
      Real t[d] = {};  // row i of root dS
      for (std::size_t m = 0; m <= i; ++m)
        for (std::size_t j = 0; j <= i; ++j) t[j] += f.root[at(i, m)] * dS[m][j];
      for (std::size_t j = 0; j <= i; ++j) {
        Real value = doffset[i] * offset[j] + offset[i] * doffset[j];
        for (std::size_t m = 0; m <= j; ++m) value += t[m] * f.root[at(j, m)];
        // d (root S rootT) has the root's own change on either side; so has the covariance that is taken off.
        if (!is_mean && i == of) value += spread[j][column] - (column <= j ? f.root[at(j, column)] : 0.0);
        if (!is_mean && j == of) value += spread[i][column] - (column <= i ? f.root[at(i, column)] : 0.0);
        add(d + at(i, j), value);
      }
    }
    ++a;
  };
  for (std::size_t of = 0; of < d; ++of) parameter(true, of, 0);
  for (std::size_t of = 0; of < d; ++of)
    for (std::size_t column = 0; column <= of; ++column) parameter(false, of, column);
}

void laplace_derivative(double* matrix, const PopulationFrame& f, const QuestionLanes* q, std::size_t groups) {
  for (std::size_t g = 0; g < groups; ++g)
    for (std::size_t lane = 0; lane < kLanes; lane += kReals)
      f.d == 4 ? add_derivative<4>(f, q[g], lane, matrix) : add_derivative<3>(f, q[g], lane, matrix);
}
