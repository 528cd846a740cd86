#pragma once
// A test harness of one header, for what is tested without Node. Prints TAP.
//
//   TEST("a row is the same alone or in any batch") {
//     CHECK(rows == 3);
//     CHECK_CLOSE(y[0], 1.5, 1e-6);
//   }
//
// A failed check is printed and the test goes on. rolegrad_tests [TEXT...] runs the tests whose claim contains one of
// the texts; the exit code is 1 when any test failed, or none ran.

#include <cmath>
#include <concepts>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace rolegrad::testing {

struct Test {
  std::string claim;
  void (*run)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

/// The failures of the test that runs, as text.
inline std::vector<std::string>& failures() {
  static std::vector<std::string> all;
  return all;
}

/// Runs the tests whose claim contains one of the arguments (none: all) and returns the exit code (runner.cc).
int run_tests(int argc, char** argv);

inline bool add(std::string claim, void (*run)()) {
  tests().push_back({std::move(claim), run});
  return true;
}

inline void fail(const char* file, int line, const std::string& what) {
  failures().push_back(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

template <class T>
std::string show(const T& value) {
  std::ostringstream out;
  out.precision(17);
  if constexpr (requires { out << value; }) {
    out << value;
  } else {
    out << "(a value)";
  }
  return out.str();
}

template <class A, class B>
void check_equal(const char* file, int line, const char* text, const A& a, const B& b) {
  const bool equal = [&] {
    if constexpr (std::integral<A> && std::integral<B> && !std::same_as<A, bool> && !std::same_as<B, bool>) {
      return std::cmp_equal(a, b);
    } else {
      return a == b;
    }
  }();
  if (!equal) fail(file, line, std::string(text) + ": " + show(a) + " is not " + show(b));
}

/// |a - b| <= tolerance; a NaN never passes.
inline void check_close(const char* file, int line, const char* text, double a, double b, double tolerance) {
  if (!(std::abs(a - b) <= tolerance))
    fail(file, line, std::string(text) + ": " + show(a) + " is not " + show(b) + " within " + show(tolerance));
}

}  // namespace rolegrad::testing

#define ROLEGRAD_JOIN_(a, b) a##b
#define ROLEGRAD_JOIN(a, b) ROLEGRAD_JOIN_(a, b)

#define TEST(claim)                                                     \
  static void ROLEGRAD_JOIN(test_, __LINE__)();                         \
  [[maybe_unused]] static const bool ROLEGRAD_JOIN(added_, __LINE__) =  \
      ::rolegrad::testing::add(claim, &ROLEGRAD_JOIN(test_, __LINE__)); \
  static void ROLEGRAD_JOIN(test_, __LINE__)()

#define CHECK(...)                                                                                \
  do {                                                                                            \
    if (!(__VA_ARGS__)) ::rolegrad::testing::fail(__FILE__, __LINE__, "not true: " #__VA_ARGS__); \
  } while (false)
#define CHECK_EQUAL(a, b) ::rolegrad::testing::check_equal(__FILE__, __LINE__, #a, a, b)
#define CHECK_CLOSE(a, b, tolerance) ::rolegrad::testing::check_close(__FILE__, __LINE__, #a, a, b, tolerance)

/// The statement throws rolegrad::Error (or anything with code()) with this code.
#define CHECK_THROWS(error_code, ...)                                                            \
  do {                                                                                           \
    std::string caught_code = "nothing";                                                         \
    try {                                                                                        \
      __VA_ARGS__;                                                                               \
    } catch (const ::rolegrad::Error& error) {                                                   \
      caught_code = error.code();                                                                \
    }                                                                                            \
    ::rolegrad::testing::check_equal(__FILE__, __LINE__, "thrown by " #__VA_ARGS__, caught_code, \
                                     std::string(error_code));                                   \
  } while (false)
