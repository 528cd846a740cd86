// Row-wise operations: elementwise but for the 16-lane sums.

float rms_inverse(const float* x, int64_t n, float eps) {
  vf part[P16];
  for (int i = 0; i < P16; i++) part[i] = vf{};
  int64_t whole = n / 16 * 16;
  for (int64_t j = 0; j < whole; j += 16)
    for (int i = 0; i < P16; i++) {
      vf v = load(x + j + i * LANES);
      part[i] = fma(v, v, part[i]);
    }
  float tail[16];
  load_tail(tail, x + whole, n - whole, 0);
  for (int i = 0; i < P16; i++) part[i] = fma(load(tail + i * LANES), load(tail + i * LANES), part[i]);
  return float(1.0 / __builtin_sqrt(double(tree_sum(part)) / double(n) + double(eps)));
}

void rmsnorm(float* y, const float* x, const float* w, float inverse, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = x[i] * inverse * w[i];
}

/// dx = inv * (w dy - xhat * mean(w dy xhat)), xhat = x * inv.
void rmsnorm_backward(float* dx, const float* dy, const float* x, const float* w, float inverse, int64_t n,
                      bool accumulate) {
  vf part[P16];
  for (int i = 0; i < P16; i++) part[i] = vf{};
  int64_t whole = n / 16 * 16;
  for (int64_t j = 0; j < whole; j += 16)
    for (int i = 0; i < P16; i++) {
      int64_t at = j + i * LANES;
      part[i] = fma(load(dy + at) * load(w + at), load(x + at), part[i]);
    }
  float a[16], b[16], c[16];
  load_tail(a, dy + whole, n - whole, 0);
  load_tail(b, w + whole, n - whole, 0);
  load_tail(c, x + whole, n - whole, 0);
  for (int i = 0; i < P16; i++) part[i] = fma(load(a + i * LANES) * load(b + i * LANES), load(c + i * LANES), part[i]);
  float mean = tree_sum(part) * inverse / float(n);
  for (int64_t i = 0; i < n; i++) {
    float g = inverse * (dy[i] * w[i] - x[i] * inverse * mean);
    dx[i] = accumulate ? dx[i] + g : g;
  }
}

void rmsnorm_weight(double* dw, const float* dy, int64_t lddy, const float* x, int64_t ldx, const float* inverse,
                    int64_t n0, int64_t n1, const int32_t* rows, const int32_t* cuts, int64_t sequences) {
  for (int64_t s = 0; s < sequences; s++)
    for (int64_t n = n0; n < n1; n++) {
      float sum = 0;
      for (int64_t i = cuts[s]; i < cuts[s + 1]; i++) {
        int64_t t = rows[i];
        sum = __builtin_fmaf(dy[t * lddy + n], x[t * ldx + n] * inverse[t], sum);
      }
      dw[n] += double(sum);
    }
}

void rmsnorm_heads_weight(double* dw, const float* dy, int64_t lddy, const float* x, int64_t ldx, const float* inverse,
                          int64_t heads, int64_t d, int64_t n0, int64_t n1, const int32_t* rows, const int32_t* cuts,
                          int64_t sequences) {
  for (int64_t s = 0; s < sequences; s++) {
    float sum[32] = {};
    for (int64_t i = cuts[s]; i < cuts[s + 1]; i++)
      for (int64_t h = 0; h < heads; h++) {
        int64_t t = rows[i];
        const float *g = dy + t * lddy + h * d + n0, *v = x + t * ldx + h * d + n0;
        float scale = inverse[t * heads + h];
        for (int64_t n = 0; n < n1 - n0; n++) sum[n] = __builtin_fmaf(g[n], v[n] * scale, sum[n]);
      }
    for (int64_t n = n0; n < n1; n++) dw[n] += double(sum[n - n0]);
  }
}

void swiglu(float* y, const float* gate, const float* up, int64_t n) {
  const vf one = splat(1);
  int64_t j = 0;
  for (; j + LANES <= n; j += LANES) {
    vf g = load(gate + j);
    store(y + j, g / (one + exp(-g)) * load(up + j));
  }
  if (j < n) {
    float g[16], u[16];
    load_tail(g, gate + j, n - j, 0);
    load_tail(u, up + j, n - j, 0);
    vf gv = load(g);
    store(u, gv / (one + exp(-gv)) * load(u));
    for (int64_t i = j; i < n; i++) y[i] = u[i - j];
  }
}

INLINE void swiglu_backward_step(float* dgate, float* dup, const float* dy, const float* gate, const float* up) {
  const vf one = splat(1);
  vf g = load(gate), u = load(up), dv = load(dy);
  vf sigmoid = one / (one + exp(-g));
  store(dup, dv * (g * sigmoid));
  store(dgate, dv * u * sigmoid * (one + g * (one - sigmoid)));
}

void swiglu_backward(float* dgate, float* dup, const float* dy, const float* gate, const float* up, int64_t n) {
  int64_t j = 0;
  for (; j + LANES <= n; j += LANES) swiglu_backward_step(dgate + j, dup + j, dy + j, gate + j, up + j);
  if (j < n) {
    float a[16], b[16], c[16];
    load_tail(a, dy + j, n - j, 0);
    load_tail(b, gate + j, n - j, 0);
    load_tail(c, up + j, n - j, 0);
    swiglu_backward_step(b, c, a, b, c);
    for (int64_t i = j; i < n; i++) {
      dgate[i] = b[i - j];
      dup[i] = c[i - j];
    }
  }
}

void add(float* y, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] += x[i];
}

/// (a, b) -> (a cos - b sin, b cos + a sin) with a = x_i, b = x_{i + d/2}.
void rope(float* x, const float* cos, const float* sin, int64_t heads, int64_t d, float sign) {
  int64_t half = d / 2;
  for (int64_t h = 0; h < heads; h++) {
    float* a = x + h * d;
    float* b = a + half;
    for (int64_t i = 0; i < half; i++) {
      float s = sin[i] * sign, u = a[i], w = b[i];
      a[i] = u * cos[i] - w * s;
      b[i] = w * cos[i] + u * s;
    }
  }
}

/// The maximum of n logits / t and the sum of exp(l / t - max), over 16 lanes; with `keep` the terms replace the
/// logits. x / 1 is x: at temperature 1 nothing is divided.
template <bool divide, bool keep>
NOINLINE void softmax_terms(const float* logits, float* terms, int64_t n, vf t, float* max_out, float* sum_out) {
  auto scaled = [&](vf x) { return divide ? x / t : x; };
  vf part[P16];
  for (int i = 0; i < P16; i++) part[i] = splat(-__builtin_inff());
  int64_t whole = n / 16 * 16;
  float tail[16];
  load_tail(tail, logits + whole, n - whole, -__builtin_inff());
  for (int64_t j = 0; j < whole; j += 16)
    for (int i = 0; i < P16; i++) part[i] = max(scaled(load(logits + j + i * LANES)), part[i]);
  for (int i = 0; i < P16; i++) part[i] = max(scaled(load(tail + i * LANES)), part[i]);
  float m = tree_max(part);
  // Of a chunk of nothing but -inf the sum is 0, and not exp(-inf - -inf).
  vf mv = splat(m > -__FLT_MAX__ ? m : -__FLT_MAX__);
  for (int i = 0; i < P16; i++) part[i] = vf{};
  for (int64_t j = 0; j < whole; j += 16)
    for (int i = 0; i < P16; i++) {
      vf e = exp(scaled(load(logits + j + i * LANES)) - mv);
      if (keep) store(terms + j + i * LANES, e);
      part[i] = part[i] + e;
    }
  for (int i = 0; i < P16; i++) {
    vf e = exp(scaled(load(tail + i * LANES)) - mv);
    if (keep) store(tail + i * LANES, e);
    part[i] = part[i] + e;
  }
  for (int64_t j = whole; keep && j < n; j++) terms[j] = tail[j - whole];
  *max_out = m;
  *sum_out = tree_sum(part);
}

/// Sums of 16 first (in the 16-lane order), then the entries of the one in which the draw falls.
int64_t chunk_draw(const float* logits, int64_t n, float temperature, float max, double left) {
  vf part[P16], t = splat(temperature), mv = splat(max);
  float tail[16], p[16];
  auto probabilities = [&](int64_t j) {
    const float* from = logits + j;
    if (n - j < 16) {
      load_tail(tail, from, n - j, -__builtin_inff());
      from = tail;
    }
    for (int i = 0; i < P16; i++) {
      part[i] = exp(load(from + i * LANES) / t - mv);
      store(p + i * LANES, part[i]);
    }
  };
  int64_t last = 0;  // the last 16 that have any
  bool found = false;
  for (int64_t j = 0; j < n && !found; j += 16) {
    probabilities(j);
    double sum = tree_sum(part);
    if (sum > 0) last = j;
    found = left < sum;
    if (!found) left -= sum;
  }
  if (!found) {
    probabilities(last);
    left = __builtin_inf();
  }
  int64_t chosen = last;
  for (int64_t k = 0; k < 16 && last + k < n; k++) {
    if (p[k] > 0) chosen = last + k;
    left -= double(p[k]);
    if (left < 0 && p[k] > 0) break;
  }
  return chosen;
}

void chunk_stats(const float* logits, int64_t n, float temperature, float* max_out, float* sum_out) {
  (temperature == 1 ? softmax_terms<false, false> : softmax_terms<true, false>)(logits, nullptr, n, splat(temperature),
                                                                                max_out, sum_out);
}

void chunk_softmax(float* logits, int64_t n, float temperature, float* max_out, float* sum_out) {
  (temperature == 1 ? softmax_terms<false, true> : softmax_terms<true, true>)(logits, logits, n, splat(temperature),
                                                                              max_out, sum_out);
}

void scale(float* x, float factor, int64_t n) {
  for (int64_t i = 0; i < n; i++) x[i] *= factor;
}

void chunk_gradient(float* logits, int64_t n, float temperature, float lse, float coefficient) {
  vf t = splat(temperature), l = splat(lse), c = splat(coefficient);
  int64_t j = 0;
  for (; j + LANES <= n; j += LANES) store(logits + j, c * exp(load(logits + j) / t - l) / t);
  if (j < n) {
    float tail[16];
    load_tail(tail, logits + j, n - j, 0);
    store(tail, c * exp(load(tail) / t - l) / t);
    for (int64_t i = j; i < n; i++) logits[i] = tail[i - j];
  }
}

double sum_of_squares(const double* x, int64_t n) {
  double part[16] = {};
  int64_t whole = n / 16 * 16;
  for (int64_t j = 0; j < whole; j += 16)
    for (int i = 0; i < 16; i++) part[i] += x[j + i] * x[j + i];
  for (int64_t j = whole; j < n; j++) part[j - whole] += x[j] * x[j];
  for (int w = 8; w >= 1; w /= 2)
    for (int i = 0; i < w; i++) part[i] += part[i + w];
  return part[0];
}

double squared_distance(const float* x, const float* y, int64_t n) {
  double part[16] = {};
  auto add = [&](int64_t j, int i) {
    double d = double(x[j + i]) - (y ? double(y[j + i]) : 0);
    part[i] += d * d;
  };
  int64_t whole = n / 16 * 16;
  for (int64_t j = 0; j < whole; j += 16)
    for (int i = 0; i < 16; i++) add(j, i);
  for (int i = 0; i < int(n - whole); i++) add(whole, i);
  for (int w = 8; w >= 1; w /= 2)
    for (int i = 0; i < w; i++) part[i] += part[i + w];
  return part[0];
}

void adamw(float* p, const double* g, float* m, float* v, int64_t n, double g_scale, double decay, double b1, double b2,
           double step_size, double bias2_root, double epsilon) {
  for (int64_t i = 0; i < n; i++) {
    double x = g[i] * g_scale;
    double m1 = b1 * double(m[i]) + (1 - b1) * x, v1 = b2 * double(v[i]) + (1 - b2) * (x * x);
    m[i] = float(m1);
    v[i] = float(v1);
    double denominator = __builtin_sqrt(v1) / bias2_root + epsilon;
    p[i] = float(double(p[i]) * decay - step_size * (m1 / denominator));
  }
}

/// MR * NV independent chains, as in a tile's inner loop but with nothing to load.
double fma_rounds(int64_t rounds, float* sink) {
  vf acc[12];
  for (int i = 0; i < 12; i++) acc[i] = splat(float(i));
  vf x = splat(1.0001f), y = splat(0.5f);
  for (int64_t r = 0; r < rounds; r++)
    EACH (i, 12) acc[i] = fma(acc[i], x, y);
  float s = 0;
  for (int i = 0; i < 12; i++) s += acc[i][0];
  *sink = s;
  return 12.0 * LANES * 2;
}

void read_memory(const float* x, int64_t n, float* sink) {
  vf acc[8];
  for (int i = 0; i < 8; i++) acc[i] = vf{};
  for (int64_t j = 0; j + 8 * LANES <= n; j += 8 * LANES)
    EACH (i, 8) acc[i] = acc[i] + load(x + j + i * LANES);
  float s = 0;
  for (int i = 0; i < 8; i++) s += acc[i][0];
  *sink = s;
}

/// See ops/dropout.h: 16 counters side by side, 64 columns.
void dropout(float* y, const float* x, int64_t n, const uint32_t* counter, const uint32_t* key, uint32_t threshold,
             float keep) {
  for (int64_t c = 0; c < n; c += 64) {
    uint32_t a[4][16];
    for (int i = 0; i < 16; i++) {
      a[0][i] = uint32_t(c / 64 * 16 + i);
      a[1][i] = counter[0];
      a[2][i] = counter[1];
      a[3][i] = counter[2];
    }
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
      for (int i = 0; i < 16; i++) {
        uint64_t p0 = uint64_t(0xD2511F53u) * a[0][i], p1 = uint64_t(0xCD9E8D57u) * a[2][i];
        uint32_t b0 = uint32_t(p1 >> 32) ^ a[1][i] ^ k0, b2 = uint32_t(p0 >> 32) ^ a[3][i] ^ k1;
        a[1][i] = uint32_t(p1);
        a[3][i] = uint32_t(p0);
        a[0][i] = b0;
        a[2][i] = b2;
      }
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    int64_t m = min64(64, n - c);
    const uint32_t* draw = &a[0][0];
    for (int64_t j = 0; j < m; j++) y[c + j] = draw[j] < threshold ? 0.0f : x[c + j] * keep;
  }
}
