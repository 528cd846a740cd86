// Included once for each instruction set, with the name of its Kernels and the bytes of its vectors. Plain loops and
// vector extensions of the compiler: no intrinsics.

#include <bit>
#include <cmath>
#include <cstring>

namespace rolegrad::attribution {
namespace {

// ---- dot products ----

/// Two draws of four columns at a time, so that counts and columns are loaded once for several products. Compilers make
/// each product-sum one instruction of eight pairs (SSE2's pmaddwd), sixteen (AVX2's) or thirty-two (AVX-512's).
void dots_of_two(std::int64_t* first, std::int64_t* second, const std::uint16_t* counts, std::size_t stride,
                 const std::int16_t* const* values, std::size_t n) {
  const std::int16_t *a = values[0], *b = values[1], *c = values[2], *d = values[3];
  std::int32_t sa = 0, sb = 0, sc = 0, sd = 0, ta = 0, tb = 0, tc = 0, td = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const auto x = static_cast<std::int16_t>(counts[i]), y = static_cast<std::int16_t>(counts[stride + i]);
    sa += static_cast<std::int32_t>(x) * a[i];
    sb += static_cast<std::int32_t>(x) * b[i];
    sc += static_cast<std::int32_t>(x) * c[i];
    sd += static_cast<std::int32_t>(x) * d[i];
    ta += static_cast<std::int32_t>(y) * a[i];
    tb += static_cast<std::int32_t>(y) * b[i];
    tc += static_cast<std::int32_t>(y) * c[i];
    td += static_cast<std::int32_t>(y) * d[i];
  }
  first[0] += sa, first[1] += sb, first[2] += sc, first[3] += sd;
  second[0] += ta, second[1] += tb, second[2] += tc, second[3] += td;
}

void dots_of_one(std::int64_t* sums, const std::uint16_t* counts, const std::int16_t* const* values, std::size_t n) {
  const std::int16_t *a = values[0], *b = values[1], *c = values[2], *d = values[3];
  std::int32_t sa = 0, sb = 0, sc = 0, sd = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const auto x = static_cast<std::int16_t>(counts[i]);
    sa += static_cast<std::int32_t>(x) * a[i];
    sb += static_cast<std::int32_t>(x) * b[i];
    sc += static_cast<std::int32_t>(x) * c[i];
    sd += static_cast<std::int32_t>(x) * d[i];
  }
  sums[0] += sa, sums[1] += sb, sums[2] += sc, sums[3] += sd;
}

void add_dots(std::int64_t* sums, const std::uint16_t* counts, std::size_t stride, std::size_t draws,
              const std::int16_t* const* values, std::size_t columns, std::size_t n) {
  for (std::size_t j = 0; j < columns; j += 4) {
    std::size_t d = 0;
    for (; d + 2 <= draws; d += 2)
      dots_of_two(sums + d * columns + j, sums + (d + 1) * columns + j, counts + d * stride, stride, values + j, n);
    if (d < draws) dots_of_one(sums + d * columns + j, counts + d * stride, values + j, n);
  }
}

// ---- random counts ----

typedef std::uint64_t Word __attribute__((vector_size(VECTOR_BYTES)));
typedef std::int16_t Short __attribute__((vector_size(VECTOR_BYTES)));
typedef double Real __attribute__((vector_size(VECTOR_BYTES)));

void drawn_rows(std::int64_t* sums, const std::int64_t* rows, std::size_t units, std::uint64_t state) {
  constexpr std::size_t kWords = VECTOR_BYTES / 8, kVectors = 64 / VECTOR_BYTES;
  Word total[kVectors] = {}, step;
  for (std::size_t l = 0; l < kWords; ++l) step[l] = l + 1;
  step = step * 0x9e3779b97f4a7c15u + state;
  for (std::size_t first = 0; first < units; first += 2 * kWords, step += kWords * 0x9e3779b97f4a7c15u) {
    Word z = step;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    const Word low = ((z & 0xffffffffu) * units) >> 32, high = ((z >> 32) * units) >> 32;
    std::uint64_t drawn[2 * kWords];
    for (std::size_t l = 0; l < kWords; ++l) drawn[2 * l] = low[l], drawn[2 * l + 1] = high[l];
    const std::size_t end = units - first < 2 * kWords ? units - first : 2 * kWords;
    for (std::size_t i = 0; i < end; ++i) {
      Word row[kVectors];
      std::memcpy(row, rows + drawn[i] * kRowColumns, sizeof row);
      for (std::size_t v = 0; v < kVectors; ++v) total[v] += row[v];
    }
  }
  std::memcpy(sums, total, sizeof total);
}

/// The eight generators of a CountStream.
template <std::size_t kVectors>
struct Generators {
  Word a[kVectors], b[kVectors], c[kVectors];
  std::uint64_t counter;

  explicit Generators(const CountStream& stream) : counter(stream.counter) {
    std::memcpy(a, stream.a.data(), 64);
    std::memcpy(b, stream.b.data(), 64);
    std::memcpy(c, stream.c.data(), 64);
  }
  /// Of vector v; when all have been asked the counter moves on.
  Word next(std::size_t v) {
    const Word word = a[v] + b[v] + counter;
    a[v] = b[v] ^ (b[v] >> 11);
    b[v] = c[v] + (c[v] << 3);
    c[v] = ((c[v] << 24) | (c[v] >> 40)) + word;
    return word;
  }
  void store(CountStream& stream) const {
    std::memcpy(stream.a.data(), a, 64);
    std::memcpy(stream.b.data(), b, 64);
    std::memcpy(stream.c.data(), c, 64);
    stream.counter = counter;
  }
};

std::uint32_t random_counts(std::uint16_t* counts, std::size_t n, const CountSteps& steps, CountStream& stream) {
  constexpr std::size_t kVectors = 64 / VECTOR_BYTES, kShorts = VECTOR_BYTES / 2;
  Generators<kVectors> generators(stream);
  Short step[kMostCount], total = {};
  for (std::size_t j = 0; j < kMostCount; ++j) step[j] = steps[j] - Short{};
  for (std::size_t i = 0; i < n; i += 32, ++generators.counter)
    for (std::size_t v = 0; v < kVectors; ++v) {
      const Word word = generators.next(v);
      Short random, count = {};
      std::memcpy(&random, &word, sizeof word);
      for (std::size_t j = 0; j < kMostCount; ++j) count -= random >= step[j];
      std::memcpy(counts + i + v * kShorts, &count, sizeof count);
      total += count;  // a lane gets kMostCount n / 32 at most
    }
  generators.store(stream);
  std::uint32_t sum = 0;
  for (std::size_t l = 0; l < kShorts; ++l) sum += static_cast<std::uint16_t>(total[l]);
  return sum;
}

// ---- selection and exponentials ----

typedef std::int64_t Long __attribute__((vector_size(VECTOR_BYTES)));

Real pick(Long mask, Real yes, Real no) {
  Long a, b;
  std::memcpy(&a, &yes, sizeof a);
  std::memcpy(&b, &no, sizeof b);
  const Long bits = (a & mask) | (b & ~mask);
  Real result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

/// exp(x) for -700 <= x <= 0, to 1e-15 (relative).
Real exp_below(Real x) {
  constexpr double kMagic = 0x1.8p52, kLog2e = 1.4426950408889634074, kLn2Hi = 6.93147180369123816490e-01,
                   kLn2Lo = 1.90821492927058770002e-10;
  const Real shifted = x * kLog2e + kMagic;  // the nearest integer is in the low bits
  const Real n = shifted - kMagic;
  const Real r = (x - n * kLn2Hi) - n * kLn2Lo;
  Real p = {};
  p += 1.0 / 479001600;
  constexpr double kInverse[] = {1.0,       1.0,        1.0 / 2,     1.0 / 6,      1.0 / 24,      1.0 / 120,
                                 1.0 / 720, 1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800};
  for (int i = 11; i >= 0; --i) p = p * r + kInverse[i];
  Word bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 1023) << 52;
  Real power;
  std::memcpy(&power, &bits, sizeof power);
  return p * power;
}

// ---- Laplace's approximation ----

#include "attribution/laplace.inl"

// ---- expectation propagation ----

#include "attribution/propagate.inl"

// ---- the characteristic function ----

#include "attribution/nodes.inl"

// ---- the null's draws ----

#include "attribution/null_draws.inl"

}  // namespace

const Kernels KERNELS = {add_dots,  drawn_rows, random_counts, node_factors, node_rows,          node_sum,
                         binomials, null_draws, null_effects,  laplace,      laplace_derivative, propagate};

}  // namespace rolegrad::attribution
