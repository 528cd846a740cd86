#include <cmath>

#include "ops/dropout.h"
#include "ops/ref/ref_backend.h"

// Dropout of what low-rank parts read (PEFT's: inverted, on x before a), and the gates of soft routing:
// y = x w^T + sum_v g_v scale (x a_v^T) b_v^T, with the experts' pairs side by side in one group.
namespace rolegrad::ref {

void RefBackend::dropout(const Tensor& y, const Tensor& x, const Dropout& d, const Rows& rows) {
  for (int64_t t = 0; t < x.rows; t++) {
    int32_t v = rows.adapter()[size_t(t)];
    float rate = v < 0 ? 0 : d.rate[size_t(v)];
    for (int64_t c = 0; c < x.cols; c++) {
      bool dropped =
          rate > 0 && dropout_draw(d.key[size_t(t)], d.position[size_t(t)], d.site, v, c) < dropout_threshold(rate);
      at(y, t, c) = rate == 0 ? at(x, t, c) : dropped ? 0 : float(double(at(x, t, c)) / (1 - double(rate)));
    }
  }
}

void RefBackend::softmax_rows(const Tensor& y, const Tensor& x) {
  for (int64_t t = 0; t < x.rows; t++) {
    std::vector<double> z;
    for (int64_t v = 0; v < x.cols; v++) z.push_back(at(x, t, v));
    softmax(z);
    for (int64_t v = 0; v < x.cols; v++) at(y, t, v) = float(z[size_t(v)]);
  }
}

void RefBackend::softmax_rows_backward(const Tensor& dx, const Tensor& dy, const Tensor& y) {
  for (int64_t t = 0; t < y.rows; t++) {
    double mean = 0;
    for (int64_t v = 0; v < y.cols; v++) mean += double(at(dy, t, v)) * at(y, t, v);
    for (int64_t v = 0; v < y.cols; v++) at(dx, t, v) = float(double(at(y, t, v)) * (at(dy, t, v) - mean));
  }
}

// u'_{m v j} = g_v u_{m v j}
void RefBackend::gate(const Tensor& out, const Tensor& u, const Tensor& gates, int modules, const Rows& rows) {
  int64_t experts = gates.cols, r = u.cols / (modules * experts);
  for (int64_t t = 0; t < u.rows; t++)
    for (int64_t c = 0; c < u.cols && rows.adapter()[size_t(t)] >= 0; c++) {
      float g = at(gates, t, c / r % experts);
      at(out, t, c) = g == 0 ? 0 : g * at(u, t, c);
    }
}

// dg_v = sum_{m j} u_{m v j} du_{m v j} / scale: y has g_v u_j b_j, and du_j = scale dy b_j
void RefBackend::gate_gradient(const Tensor& dgates, const Tensor& u, const Tensor& du, float scale, int modules,
                               const Rows& rows, bool accumulate) {
  int64_t experts = dgates.cols, r = u.cols / (modules * experts);
  for (int64_t t = 0; t < u.rows; t++)
    for (int64_t v = 0; v < experts; v++) {
      double sum = 0;
      for (int64_t c = 0; c < u.cols && rows.adapter()[size_t(t)] >= 0 && scale != 0; c++)
        if (c / r % experts == v) sum += double(at(u, t, c)) * at(du, t, c) / scale;
      at(dgates, t, v) = float(accumulate ? at(dgates, t, v) + sum : sum);
    }
}

}  // namespace rolegrad::ref
