#include "ops/ref/ref_backend.h"

namespace rolegrad::ref {

namespace {

// h w^T / temperature of row r, [V], with the columns that are replaced
std::vector<double> scaled_logits(const Tensor& h, int64_t r, const Weight& head, double temperature,
                                  const LogitColumns& replaced = {}) {
  std::vector<double> z(size_t(head.n()));
  for (int64_t v = 0; v < head.n(); v++) {
    for (int64_t k = 0; k < head.k(); k++) z[size_t(v)] = head.step(z[size_t(v)], at(h, r, k), head.at(v, k));
    z[size_t(v)] /= temperature;
  }
  for (size_t j = 0; j < replaced.ids.size(); j++)
    z[size_t(replaced.ids[j])] = double(at(replaced.logits, r, int64_t(j))) / temperature;
  return z;
}

}  // namespace

void RefBackend::logits(const Tensor& logits, const Tensor& h, const PackedWeight& head) {
  for (int64_t r = 0; r < h.rows; r++) {
    auto z = scaled_logits(h, r, static_cast<const Weight&>(head), 1);
    for (int64_t v = 0; v < head.n(); v++) at(logits, r, v) = float(z[size_t(v)]);
  }
}

// logprob = z_target - lse, z = h w^T / temperature
void RefBackend::head_logprobs(const Tensor& logprob, const Tensor& lse, const Tensor& h, const PackedWeight& head,
                               std::span<const int32_t> targets, float temperature, const LogitColumns& replaced) {
  for (int64_t r = 0; r < h.rows; r++) {
    auto z = scaled_logits(h, r, static_cast<const Weight&>(head), temperature, replaced);
    double target = z[size_t(targets[size_t(r)])], sum = softmax(z);
    at(logprob, r, 0) = float(target - sum);
    at(lse, r, 0) = float(sum);
  }
}

// mean = sum_v softmax(z)_v w_v
void RefBackend::head_logprobs_mean(const Tensor& logprob, const Tensor& lse, const Tensor& mean, const Tensor& h,
                                    const PackedWeight& head, std::span<const int32_t> targets, float temperature,
                                    std::span<const uint8_t> wanted) {
  head_logprobs(logprob, lse, h, head, targets, temperature, {});
  const auto& weight = static_cast<const Weight&>(head);
  for (int64_t r = 0; r < h.rows; r++) {
    if (!wanted[size_t(r)]) continue;
    auto p = scaled_logits(h, r, weight, temperature);
    softmax(p);
    for (int64_t k = 0; k < head.k(); k++) {
      double sum = 0;
      for (int64_t v = 0; v < head.n(); v++) sum = weight.step(sum, p[size_t(v)], weight.at(v, k));
      at(mean, r, k) = float(sum);
    }
  }
}

// dh = coefficient / temperature (mean - w_target)
void RefBackend::head_mean_backward(const Tensor& dh, const Tensor& mean, const PackedWeight& head,
                                    std::span<const int32_t> targets, std::span<const float> coefficient,
                                    float temperature) {
  const auto& weight = static_cast<const Weight&>(head);
  for (int64_t r = 0; r < dh.rows; r++)
    for (int64_t k = 0; k < dh.cols; k++) {
      double c = coefficient[size_t(r)] / double(temperature);
      at(dh, r, k) = c == 0 ? 0 : float(c * (double(at(mean, r, k)) - weight.at(targets[size_t(r)], k)));
    }
}

// dz_v = coefficient (softmax(z)_v - [v = target]) / temperature;   dh = sum_v dz_v w_v;   dw_v += dz_v h
// A row of coefficient 0 is left out, not multiplied. The softmax is computed again: lse, which spares that, is not
// read. dz of an entry that is replaced goes to dlogits, and to dlogits alone.
void RefBackend::head_backward(const Tensor& dh, const GradTensor* dw, const Tensor& h, const Tensor&,
                               const PackedWeight& head, std::span<const int32_t> targets,
                               std::span<const float> coefficient, float temperature, const Rows::Group& group,
                               const LogitColumns& replaced, const Tensor& dlogits) {
  const auto& weight = static_cast<const Weight&>(head);
  auto gradient_of = [&](int64_t r) {
    std::vector<double> z = scaled_logits(h, r, weight, temperature, replaced);
    softmax(z);
    z[size_t(targets[size_t(r)])] -= 1;
    for (double& value : z) value *= coefficient[size_t(r)] / double(temperature);
    return z;
  };
  auto leave_out = [&](std::vector<double>& dz) {
    for (int32_t id : replaced.ids) dz[size_t(id)] = 0;
  };
  for (int64_t r = 0; r < h.rows; r++) {
    std::vector<double> sum(size_t(head.k()));
    for (size_t j = 0; j < replaced.ids.size(); j++) at(dlogits, r, int64_t(j)) = 0;
    if (coefficient[size_t(r)] != 0) {
      auto dz = gradient_of(r);
      for (size_t j = 0; j < replaced.ids.size(); j++) at(dlogits, r, int64_t(j)) = float(dz[size_t(replaced.ids[j])]);
      leave_out(dz);
      for (int64_t v = 0; v < head.n(); v++)
        for (int64_t k = 0; k < head.k(); k++)
          sum[size_t(k)] = weight.step(sum[size_t(k)], dz[size_t(v)], weight.at(v, k));
    }
    for (int64_t k = 0; k < head.k(); k++) at(dh, r, k) = float(sum[size_t(k)]);
  }
  if (!dw) return;
  for (int32_t r : group.rows) {
    if (coefficient[size_t(r)] == 0) continue;
    auto dz = gradient_of(r);
    leave_out(dz);
    for (int64_t v = 0; v < head.n(); v++)
      for (int64_t k = 0; k < head.k(); k++) at(*dw, v, k) += dz[size_t(v)] * at(h, r, k);
  }
}

// entropy = -sum_v p_v log p_v = lse - sum_v p_v z_v, and z is linear in w: sum_v p_v z_v = h . mean / temperature
void RefBackend::head_entropy(const Tensor& entropy, const Tensor& h, const Tensor& mean, const Tensor& lse,
                              float temperature) {
  for (int64_t r = 0; r < h.rows; r++) {
    double sum = 0;
    for (int64_t k = 0; k < h.cols; k++) sum += double(at(h, r, k)) * double(at(mean, r, k));
    at(entropy, r, 0) = float(double(at(lse, r, 0)) - sum / double(temperature));
  }
}

// dz_v = -coefficient p_v (log p_v + entropy) / temperature;   dh += sum_v dz_v w_v;   dw_v += dz_v h
// As in head_backward a row of coefficient 0 is left out, and what was computed before is computed again.
void RefBackend::head_entropy_backward(const Tensor& dh, const GradTensor* dw, const Tensor& h, const Tensor&,
                                       const Tensor&, const PackedWeight& head, std::span<const float> coefficient,
                                       float temperature, const Rows::Group& group) {
  const auto& weight = static_cast<const Weight&>(head);
  auto gradient_of = [&](int64_t r) {
    std::vector<double> p = scaled_logits(h, r, weight, temperature), z = p;
    const double lse = softmax(p);
    double entropy = 0;
    for (size_t v = 0; v < p.size(); v++)
      if (p[v] != 0) entropy -= p[v] * (z[v] - lse);
    for (size_t v = 0; v < p.size(); v++)
      p[v] = p[v] == 0 ? 0 : -p[v] * (z[v] - lse + entropy) * coefficient[size_t(r)] / double(temperature);
    return p;
  };
  for (int64_t r = 0; r < h.rows; r++) {
    if (coefficient[size_t(r)] == 0) continue;
    auto dz = gradient_of(r);
    for (int64_t k = 0; k < head.k(); k++) {
      double sum = at(dh, r, k);
      for (int64_t v = 0; v < head.n(); v++) sum = weight.step(sum, dz[size_t(v)], weight.at(v, k));
      at(dh, r, k) = float(sum);
    }
  }
  if (!dw) return;
  for (int32_t r : group.rows) {
    if (coefficient[size_t(r)] == 0) continue;
    auto dz = gradient_of(r);
    for (int64_t v = 0; v < head.n(); v++)
      for (int64_t k = 0; k < head.k(); k++) at(*dw, v, k) += dz[size_t(v)] * at(h, r, k);
  }
}

}  // namespace rolegrad::ref
