#include <cmath>

#include "attribution/question_lanes.h"
#include "attribution/question_posterior.h"

namespace rolegrad::attribution {

PopulationFrame::PopulationFrame(const EffectPopulation& p) : d(p.d) {
  for (std::size_t i = 0; i < d; ++i) mean[i] = p.mean[i];
  for (std::size_t i = 0; i < p.pairs(); ++i) root[i] = p.root[i];
  for (std::size_t i = 0; i < d; ++i)
    for (std::size_t j = 0; j <= i; ++j) covariance[pair_index(i, j)] = p.covariance(i, j);
  for (std::size_t v = 0; v < 4; ++v)
    for (std::size_t i = 0; i < d; ++i) {
      centre[v] += kEffectRows[v][i] * mean[i];
      for (std::size_t j = 0; j <= i; ++j) row[v][j] += kEffectRows[v][i] * root[pair_index(i, j)];
    }
}

Laplace::Laplace(const EffectPopulation& p) : p_(p) {
  for (std::size_t v = 0; v < 4; ++v)
    for (std::size_t i = 0; i < p.d; ++i) {
      centre_[v] += kEffectRows[v][i] * p.mean[i];
      for (std::size_t j = 0; j <= i; ++j) row_[v][j] += kEffectRows[v][i] * p.root[pair_index(i, j)];
    }
}

int Laplace::operator()(const Cells& cells, EffectVector& z, QuestionPosterior& out) const {
  return p_.d == 4 ? step<4>(cells, z, out) : step<3>(cells, z, out);
}

void Laplace::subtract_derivative(const Cells& cells, const EffectVector& z, double* matrix) const {
  p_.d == 4 ? derive<4>(cells, z, matrix) : derive<3>(cells, z, matrix);
}

template <std::size_t d>
int Laplace::step(const Cells& cells, EffectVector& z, QuestionPosterior& out) const {
  EffectPairs h, root{};
  std::array<double, 4> probability;
  int steps = 0;
  while (steps < 50) {
    ++steps;
    EffectVector g{};
    h = {};
    for (std::size_t i = 0; i < d; ++i) g[i] = -z[i], h[pair_index(i, i)] = 1;
    for (std::size_t v = 0; v < 4; ++v) {
      double eta = centre_[v];
      for (std::size_t i = 0; i < d; ++i) eta += row_[v][i] * z[i];
      const double p = probability[v] = logistic(eta), residual = cells[v].k - cells[v].n * p;
      const double information = cells[v].n * p * (1 - p);
      for (std::size_t i = 0; i < d; ++i) {
        g[i] += row_[v][i] * residual;
        for (std::size_t j = 0; j <= i; ++j) h[pair_index(i, j)] += information * row_[v][i] * row_[v][j];
      }
    }
    cholesky<d>(h, root);
    back_solve<d>(root, g);
    double length = 0;
    for (std::size_t i = 0; i < d; ++i) length += g[i] * g[i];
    const double scale = length > 4 ? 2 / std::sqrt(length) : 1;
    for (std::size_t i = 0; i < d; ++i) z[i] += scale * g[i];
    if (length < 1e-8) break;  // Newton: what is left is its square
  }
  // mean = mode + H^-1 sum_v row_v l3_v (row_vT H^-1 row_v) / 2
  EffectVector move{}, x;
  for (std::size_t v = 0; v < 4; ++v) {
    x = row_[v];
    back_solve<d>(root, x);
    double s = 0;
    for (std::size_t i = 0; i < d; ++i) s += x[i] * row_[v][i];
    const double p = probability[v], third = -cells[v].n * p * (1 - p) * (1 - 2 * p);
    for (std::size_t i = 0; i < d; ++i) move[i] += third * s / 2 * x[i];
  }
  for (std::size_t i = 0; i < d; ++i) {
    out.mean[i] = p_.mean[i];
    for (std::size_t j = 0; j <= i; ++j) out.mean[i] += p_.root[pair_index(i, j)] * (z[j] + move[j]);
    x = {};
    for (std::size_t j = 0; j <= i; ++j) x[j] = p_.root[pair_index(i, j)];
    back_solve<d>(root, x);
    for (std::size_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (std::size_t m = 0; m <= j; ++m) sum += p_.root[pair_index(j, m)] * x[m];
      out.covariance[pair_index(i, j)] = sum;
    }
  }
  return steps;
}

template <std::size_t d>
void Laplace::derive(const Cells& cells, const EffectVector& z, double* matrix) const {
  constexpr std::size_t n = d + d * (d + 1) / 2;
  // At the mode: H = 1 + sum_v information_v row_v row_vT, its inverse S, x_v = S row_v, s_v = row_vT x_v.
  std::array<double, 4> probability, information, third, s;
  EffectPairs h{}, root{};
  for (std::size_t i = 0; i < d; ++i) h[pair_index(i, i)] = 1;
  for (std::size_t v = 0; v < 4; ++v) {
    double eta = centre_[v];
    for (std::size_t i = 0; i < d; ++i) eta += row_[v][i] * z[i];
    const double p = probability[v] = logistic(eta);
    information[v] = cells[v].n * p * (1 - p);
    third[v] = -information[v] * (1 - 2 * p);
    for (std::size_t i = 0; i < d; ++i)
      for (std::size_t j = 0; j <= i; ++j) h[pair_index(i, j)] += information[v] * row_[v][i] * row_[v][j];
  }
  cholesky<d>(h, root);
  std::array<EffectVector, kMostEffects> inverse{};
  for (std::size_t i = 0; i < d; ++i) {
    inverse[i][i] = 1;
    back_solve<d>(root, inverse[i]);
  }
  std::array<EffectVector, 4> x{};
  EffectVector centre = z;  // of z: the mode, moved for skewness
  for (std::size_t v = 0; v < 4; ++v) {
    s[v] = 0;
    for (std::size_t i = 0; i < d; ++i) {
      for (std::size_t j = 0; j < d; ++j) x[v][i] += inverse[i][j] * row_[v][j];
      s[v] += row_[v][i] * x[v][i];
    }
    for (std::size_t i = 0; i < d; ++i) centre[i] += third[v] * s[v] / 2 * x[v][i];
  }
  // root S, and E(phi) - mean = root centre.
  std::array<EffectVector, kMostEffects> spread{};
  EffectVector offset{};
  for (std::size_t i = 0; i < d; ++i)
    for (std::size_t m = 0; m <= i; ++m) {
      const double r = p_.root[pair_index(i, m)];
      offset[i] += r * centre[m];
      for (std::size_t j = 0; j < d; ++j) spread[i][j] += r * inverse[m][j];
    }

  for (std::size_t a = 0; a < n; ++a) {
    // The parameter is mean[of], or root[of, column]: then d row_v[column] = kEffectRows[v][of].
    const bool is_mean = a < d;
    const std::size_t pair = is_mean ? 0 : a - d;
    const std::size_t of = is_mean ? a : pair < 1 ? 0 : pair < 3 ? 1 : pair < 6 ? 2 : 3;
    const std::size_t column = is_mean ? 0 : pair - pair_index(of, 0);
    const double along = is_mean ? 1 : z[column];  // d eta_v for a fixed z, over kEffectRows[v][of]
    EffectVector g{}, dz{};                        // d z = S g
    for (std::size_t v = 0; v < 4; ++v) {
      const double e = kEffectRows[v][of];
      if (e == 0) continue;
      for (std::size_t i = 0; i < d; ++i) g[i] -= information[v] * along * e * row_[v][i];
      if (!is_mean) g[column] += e * (cells[v].k - cells[v].n * probability[v]);
    }
    for (std::size_t i = 0; i < d; ++i)
      for (std::size_t j = 0; j < d; ++j) dz[i] += inverse[i][j] * g[j];
    // dS = -S dH S: outer products of x_v and S d row_v. information' = -third; third' = -information (1 - 6 p (1 -
    // p)).
    std::array<EffectVector, kMostEffects> dS{};
    std::array<double, 4> dthird;
    for (std::size_t v = 0; v < 4; ++v) {
      const double e = is_mean ? 0 : kEffectRows[v][of], p = probability[v];
      double deta = along * kEffectRows[v][of];
      for (std::size_t i = 0; i < d; ++i) deta += row_[v][i] * dz[i];
      dthird[v] = -information[v] * (1 - 6 * p * (1 - p)) * deta;
      for (std::size_t i = 0; i < d; ++i)
        for (std::size_t j = 0; j <= i; ++j)
          dS[i][j] += third[v] * deta * x[v][i] * x[v][j] -
                      information[v] * e * (inverse[i][column] * x[v][j] + x[v][i] * inverse[j][column]);
    }
    for (std::size_t i = 0; i < d; ++i)
      for (std::size_t j = 0; j < i; ++j) dS[j][i] = dS[i][j];
    EffectVector dcentre = dz;
    for (std::size_t v = 0; v < 4; ++v) {
      const double e = is_mean ? 0 : kEffectRows[v][of];
      EffectVector dx{};
      double ds = 2 * e * x[v][column];
      for (std::size_t i = 0; i < d; ++i) {
        for (std::size_t j = 0; j < d; ++j) dx[i] += dS[i][j] * row_[v][j];
        ds += row_[v][i] * dx[i];
        dx[i] += e * inverse[i][column];
      }
      const double slope = (dthird[v] * s[v] + third[v] * ds) / 2, level = third[v] * s[v] / 2;
      for (std::size_t i = 0; i < d; ++i) dcentre[i] += slope * x[v][i] + level * dx[i];
    }
    EffectVector doffset{};
    for (std::size_t i = 0; i < d; ++i)
      for (std::size_t m = 0; m <= i; ++m) doffset[i] += p_.root[pair_index(i, m)] * dcentre[m];
    if (!is_mean) doffset[of] += centre[column];
    for (std::size_t i = 0; i < d; ++i) {
      matrix[i * n + a] -= doffset[i];
      EffectVector t{};  // row i of root dS
      for (std::size_t m = 0; m <= i; ++m)
        for (std::size_t j = 0; j < d; ++j) t[j] += p_.root[pair_index(i, m)] * dS[m][j];
      for (std::size_t j = 0; j <= i; ++j) {
        double value = doffset[i] * offset[j] + offset[i] * doffset[j];
        for (std::size_t m = 0; m <= j; ++m) value += t[m] * p_.root[pair_index(j, m)];
        // d (root S rootT) has the root's own change on either side; so has the covariance that is taken off.
        if (!is_mean && i == of) value += spread[j][column] - (column <= j ? p_.root[pair_index(j, column)] : 0);
        if (!is_mean && j == of) value += spread[i][column] - (column <= i ? p_.root[pair_index(i, column)] : 0);
        matrix[(d + pair_index(i, j)) * n + a] -= value;
      }
    }
  }
}

}  // namespace rolegrad::attribution
