#pragma once
// One description of an operation drives its test for every backend. A description is a function that places its
// numbers in the memory of the backend it is given, runs the operation and returns what came out, each with the error
// it may have:
//
//   std::vector<Case> add_cases() { return {{"3 x 50", [](Backend& backend) { ...; return outputs; }}}; }
//   OPERATION("add", add_cases);
//
// and becomes these tests: every fast backend equals the reference within the bound; one thread equals all threads
// bitwise; AVX2 equals AVX-512 bitwise.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "harness.h"
#include "ops/backend.h"

namespace rolegrad::testing {

/// Unit roundoff of f32.
inline constexpr double kEps = 0x1p-24;

/// A dense matrix of the test's own.
struct Mat {
  int64_t rows = 0, cols = 0;
  std::vector<float> v;

  Mat() = default;
  Mat(int64_t rows_, int64_t cols_) : rows(rows_), cols(cols_), v(size_t(rows_ * cols_)) {}
  float& operator()(int64_t i, int64_t j) { return v[size_t(i * cols + j)]; }
  float operator()(int64_t i, int64_t j) const { return v[size_t(i * cols + j)]; }
  Mat row_range(int64_t begin, int64_t n) const;
  /// Euclidean norms of every row, of every column, and of all of it.
  std::vector<double> row_norms() const;
  std::vector<double> col_norms() const;
  double norm() const;
};

struct GradMat {
  int64_t rows = 0, cols = 0;
  std::vector<double> v;

  GradMat() = default;
  GradMat(int64_t rows_, int64_t cols_) : rows(rows_), cols(cols_), v(size_t(rows_ * cols_)) {}
};

/// True when every number has the same bits (a NaN equals itself).
bool same_bits(const Mat& a, const Mat& b);
bool same_bits(const GradMat& a, const GradMat& b);

/// Numbers that depend on the seed alone.
class Numbers {
 public:
  explicit Numbers(uint64_t seed) : key_{seed, 1} {}
  double uniform() { return rolegrad::uniform(key_, next_++); }
  /// Uniform in [-size, size).
  float number(double size = 1) { return float((2 * uniform() - 1) * size); }
  int below(int n) { return int(uniform() * n); }
  Mat matrix(int64_t rows, int64_t cols, double size = 1);
  /// A matrix of numbers that bf16 holds exactly.
  Mat bf16_matrix(int64_t rows, int64_t cols, double size = 1);
  GradMat gradient(int64_t rows, int64_t cols);

 private:
  RngKey key_;
  uint64_t next_ = 0;
};

/// Tensors in a backend's memory, each within poisoned surroundings (NaNs of known bits in what is left of each row and
/// in a row before and after): reading them spoils a result, writing them fails guards(). Every second tensor begins at
/// a column other than 0.
class Place {
 public:
  explicit Place(Backend& backend) : backend_(backend) {}
  Place(const Place&) = delete;

  Backend& backend() { return backend_; }
  /// A tensor of these numbers; with `poison` NaNs, to see that an output is written whole.
  Tensor put(const Mat& x);
  Tensor poison(int64_t rows, int64_t cols);
  GradTensor put(const GradMat& x);
  Mat read(const Tensor& x);
  GradMat read(const GradTensor& x);
  double* scalar(double value);
  /// Fails the running test if anything around the tensors has changed.
  void guards(const std::string& what);

 private:
  struct Block {
    std::unique_ptr<Memory> memory;
    Tensor whole, view;
    GradTensor grad_whole, grad_view;
  };
  Block& block(int64_t rows, int64_t cols, bool grad);

  Backend& backend_;
  std::vector<Block> blocks_;
};

/// What one run of an operation gave.
class Outputs {
 public:
  struct Output {
    std::string name;
    int64_t cols = 1;
    std::vector<double> value;
    std::vector<double> bound;  // how far each may be from the reference's; NaN only equals NaN
    double relative = 1;  // how far all may be, in norms; says more where a bound for each is far above what is usual
  };
  /// bound(i, j)
  using Bound = std::function<double(int64_t, int64_t)>;

  void add(std::string name, const Mat& x, const Bound& bound, double relative = 1);
  void add(std::string name, const GradMat& x, const Bound& bound, double relative = 1);
  void add_list(std::string name, std::vector<double> x, const Bound& bound);
  /// To be equal in every bit.
  void exact(std::string name, const Mat& x) { add(std::move(name), x, none); }

  const std::vector<Output>& all() const { return all_; }
  static double none(int64_t, int64_t) { return 0; }

 private:
  std::vector<Output> all_;
};

struct Case {
  std::string name;
  std::function<Outputs(Backend&)> run;
};
using Cases = std::vector<Case> (*)();

/// The fast backends this program was built with: what make_cpu_backend calls them (op_backends.cc), or the CUDA
/// library's (cuda_backends.cc).
const std::vector<std::string>& fast_backends();
/// The i-th of them; null where this CPU cannot run it.
Backend* fast_backend(size_t i);
Backend& reference_backend();
/// Of the bf16 multiply mode, where these backends have one: its backend (null where this CPU cannot run it) and its
/// reference.
bool has_bf16_mode();
Backend* bf16_backend();
Backend& bf16_reference();
/// One more of these kernels and this precision: a model owns its backend.
std::unique_ptr<Backend> another(Backend& backend);

/// Marks the running test as skipped, and why.
void skip(size_t test, const std::string& why);

/// Fails for each output that differs from what is expected.
void compare(const std::string& name, const Outputs& ours, const Outputs& theirs, bool bitwise, double slack = 1);
void check_against_reference(Cases cases, Backend& backend);
/// The same against another reference, with bounds `slack` times as wide.
void check_against(Cases cases, Backend& backend, Backend& reference, double slack = 1);
/// Bitwise the same in another way of running that must not matter: again_how() names it.
void check_again(Cases cases, Backend& backend);
const char* again_how();
void check_same_bits(Cases cases, Backend& a, Backend& b);

/// A hash of bits, 64-bit words mixed as MurmurHash3 ends. All NaNs are one (their bits are not part of the contract).
class Hash {
 public:
  void add(uint64_t word) {
    state_ += word;
    state_ = (state_ ^ (state_ >> 33)) * 0xff51afd7ed558ccdull;
    state_ = (state_ ^ (state_ >> 33)) * 0xc4ceb9fe1a85ec53ull;
    state_ ^= state_ >> 33;
  }
  void add(double value);
  template <class T>
  void add(const std::vector<T>& values) {
    for (const T& value : values)
      if constexpr (std::is_floating_point_v<T>)
        add(double(value));
      else
        add(uint64_t(int64_t(value)));
  }
  std::string hex() const;

 private:
  uint64_t state_ = 0xcbf29ce484222325ull;
};

/// Every operation of the tables with its cases.
struct NamedOperation {
  std::string name;
  Cases cases;
};
std::vector<NamedOperation>& operations();
/// Prints a line for each output of each case on the first fast backend that runs here. Two machines that keep the
/// contract print the same text.
void print_operation_hashes();

namespace detail {

inline constexpr size_t kMaxBackends = 2;

// The harness runs plain functions; a template makes one for each backend.
template <void (*test)(Backend&), size_t i>
struct OnBackend {
  static inline size_t index = 0;
  static void run() {
    if (Backend* backend = fast_backend(i)) {
      test(*backend);
    } else {
      skip(index, "this CPU has no " + fast_backends()[i]);
    }
  }
  static void add(const std::string& claim) {
    if (i >= fast_backends().size()) return;
    index = tests().size();
    testing::add(claim + " (" + fast_backends()[i] + ")", &run);
  }
};

template <void (*test)(Backend&)>
bool add_for_each(const std::string& claim) {
  OnBackend<test, 0>::add(claim);
  OnBackend<test, 1>::add(claim);
  return true;
}

template <void (*test)(Backend&)>
struct OnBf16 {
  static inline size_t index = 0;
  static void run() {
    if (Backend* backend = bf16_backend()) {
      test(*backend);
    } else {
      skip(index, "this CPU has no AVX512-BF16");
    }
  }
  static bool add(const std::string& claim) {
    if (!has_bf16_mode()) return true;
    index = tests().size();
    return testing::add(claim + " (bf16 multiply)", &run);
  }
};

template <void (*test)(Backend&, Backend&)>
struct OnBoth {
  static inline size_t index = 0;
  static void run() {
    Backend *a = fast_backend(0), *b = fast_backend(1);
    if (a && b) {
      test(*a, *b);
    } else {
      skip(index, "this CPU has not both " + fast_backends()[0] + " and " + fast_backends()[1]);
    }
  }
  static bool add(const std::string& claim) {
    if (fast_backends().size() < 2) return true;
    index = tests().size();
    return testing::add(claim, &run);
  }
};

template <Cases cases>
struct Operation {
  static void reference(Backend& backend) { check_against_reference(cases, backend); }
  static void again(Backend& backend) { check_again(cases, backend); }
  static void instruction_sets(Backend& a, Backend& b) { check_same_bits(cases, a, b); }
  static bool add(const std::string& name) {
    operations().push_back({name, cases});
    add_for_each<&reference>(name + " equals the reference within rounding");
    add_for_each<&again>(name + " gives the same bits " + again_how());
    OnBoth<&instruction_sets>::add(name + " gives the same bits with AVX2 and AVX-512");
    return true;
  }
};

}  // namespace detail
}  // namespace rolegrad::testing

/// The tests that follow from a list of cases.
#define OPERATION(name, cases)                                         \
  [[maybe_unused]] static const bool ROLEGRAD_JOIN(added_, __LINE__) = \
      ::rolegrad::testing::detail::Operation<&cases>::add(name)

/// A test of `backend` that runs once for each fast backend.
#define BACKEND_TEST(claim)                                                                           \
  static void ROLEGRAD_JOIN(backend_test_, __LINE__)([[maybe_unused]] ::rolegrad::Backend & backend); \
  [[maybe_unused]] static const bool ROLEGRAD_JOIN(added_, __LINE__) =                                \
      ::rolegrad::testing::detail::add_for_each<&ROLEGRAD_JOIN(backend_test_, __LINE__)>(claim);      \
  static void ROLEGRAD_JOIN(backend_test_, __LINE__)([[maybe_unused]] ::rolegrad::Backend & backend)

/// A test of `backend` that runs on that of the bf16 multiply mode.
#define BF16_TEST(claim)                                                                           \
  static void ROLEGRAD_JOIN(bf16_test_, __LINE__)([[maybe_unused]] ::rolegrad::Backend & backend); \
  [[maybe_unused]] static const bool ROLEGRAD_JOIN(added_bf16_, __LINE__) =                        \
      ::rolegrad::testing::detail::OnBf16<&ROLEGRAD_JOIN(bf16_test_, __LINE__)>::add(claim);       \
  static void ROLEGRAD_JOIN(bf16_test_, __LINE__)([[maybe_unused]] ::rolegrad::Backend & backend)

/// A test of what holds in every precision: for each fast backend, and for that of the bf16 multiply mode.
#define CONTRACT_TEST(claim)                                                                          \
  static void ROLEGRAD_JOIN(backend_test_, __LINE__)([[maybe_unused]] ::rolegrad::Backend & backend); \
  [[maybe_unused]] static const bool ROLEGRAD_JOIN(added_, __LINE__) =                                \
      ::rolegrad::testing::detail::add_for_each<&ROLEGRAD_JOIN(backend_test_, __LINE__)>(claim) &&    \
      ::rolegrad::testing::detail::OnBf16<&ROLEGRAD_JOIN(backend_test_, __LINE__)>::add(claim);       \
  static void ROLEGRAD_JOIN(backend_test_, __LINE__)([[maybe_unused]] ::rolegrad::Backend & backend)

/// A test of backends `a` and `b`, the two instruction sets of x86-64.
#define TWO_BACKENDS_TEST(claim)                                                                         \
  static void ROLEGRAD_JOIN(backends_test_, __LINE__)(::rolegrad::Backend & a, ::rolegrad::Backend & b); \
  [[maybe_unused]] static const bool ROLEGRAD_JOIN(added_, __LINE__) =                                   \
      ::rolegrad::testing::detail::OnBoth<&ROLEGRAD_JOIN(backends_test_, __LINE__)>::add(claim);         \
  static void ROLEGRAD_JOIN(backends_test_, __LINE__)(::rolegrad::Backend & a, ::rolegrad::Backend & b)

/// Bit equality of two matrices.
#define CHECK_SAME_BITS(a, b) CHECK(::rolegrad::testing::same_bits(a, b))
