#include "op_cases.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>

#include "core/error.h"

namespace rolegrad::testing {

namespace {

constexpr uint32_t kPoison = 0x7fc0dead;
constexpr uint64_t kGradPoison = 0x7ff80000deadbeefull;

template <class T>
bool equal_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

}  // namespace

Mat Mat::row_range(int64_t begin, int64_t n) const {
  Mat out(n, cols);
  std::copy_n(v.begin() + begin * cols, n * cols, out.v.begin());
  return out;
}

std::vector<double> Mat::row_norms() const {
  std::vector<double> out(size_t(rows), 0);
  for (size_t i = 0; i < v.size(); i++) out[i / size_t(cols)] += double(v[i]) * v[i];
  for (double& value : out) value = std::sqrt(value);
  return out;
}

std::vector<double> Mat::col_norms() const {
  std::vector<double> out(size_t(cols), 0);
  for (size_t i = 0; i < v.size(); i++) out[i % size_t(cols)] += double(v[i]) * v[i];
  for (double& value : out) value = std::sqrt(value);
  return out;
}

double Mat::norm() const {
  double sum = 0;
  for (float value : v) sum += double(value) * value;
  return std::sqrt(sum);
}

bool same_bits(const Mat& a, const Mat& b) { return a.rows == b.rows && equal_bits(a.v, b.v); }
bool same_bits(const GradMat& a, const GradMat& b) { return a.rows == b.rows && equal_bits(a.v, b.v); }

Mat Numbers::matrix(int64_t rows, int64_t cols, double size) {
  Mat x(rows, cols);
  for (float& value : x.v) value = number(size);
  return x;
}

Mat Numbers::bf16_matrix(int64_t rows, int64_t cols, double size) {
  Mat x = matrix(rows, cols, size);
  for (float& value : x.v) value = bf16_to_float(float_to_bf16(value));
  return x;
}

GradMat Numbers::gradient(int64_t rows, int64_t cols) {
  GradMat x(rows, cols);
  for (double& value : x.v) value = 2 * uniform() - 1;
  return x;
}

// ---- tensors within poisoned surroundings

Place::Block& Place::block(int64_t rows, int64_t cols, bool grad) {
  const int64_t offset = blocks_.size() % 2 ? 16 : 0;
  const int64_t ld = backend_.leading_dimension(offset + cols + 1);
  const size_t cells = size_t((rows + 2) * ld);
  Block made;
  if (grad) {
    made.memory = backend_.allocate(cells * sizeof(double));
    made.grad_whole = {static_cast<double*>(made.memory->data()), rows + 2, ld, ld};
    made.grad_view = {made.grad_whole.data + ld + offset, rows, cols, ld};
    backend_.write(made.grad_whole, std::vector<double>(cells, std::bit_cast<double>(kGradPoison)).data());
  } else {
    made.memory = backend_.allocate(cells * sizeof(float));
    made.whole = {static_cast<float*>(made.memory->data()), rows + 2, ld, ld};
    made.view = made.whole.row_range(1, rows).col_range(offset, cols);
    backend_.write(made.whole, std::vector<float>(cells, std::bit_cast<float>(kPoison)).data());
  }
  blocks_.push_back(std::move(made));
  return blocks_.back();
}

Tensor Place::put(const Mat& x) {
  Tensor tensor = poison(x.rows, x.cols);
  if (!x.v.empty()) backend_.write(tensor, x.v.data());
  return tensor;
}

Tensor Place::poison(int64_t rows, int64_t cols) { return block(rows, cols, false).view; }

GradTensor Place::put(const GradMat& x) {
  GradTensor tensor = block(x.rows, x.cols, true).grad_view;
  if (!x.v.empty()) backend_.write(tensor, x.v.data());
  return tensor;
}

double* Place::scalar(double value) {
  GradMat x(1, 1);
  x.v[0] = value;
  return put(x).data;
}

Mat Place::read(const Tensor& x) {
  Mat out(x.rows, x.cols);
  if (!out.v.empty()) backend_.read(out.v.data(), x);
  return out;
}

GradMat Place::read(const GradTensor& x) {
  GradMat out(x.rows, x.cols);
  if (!out.v.empty()) backend_.read(out.v.data(), x);
  return out;
}

void Place::guards(const std::string& what) {
  auto changed = [](const auto& values, auto poison, const auto& whole, const auto& view) {
    using Bits = decltype(poison);
    const int64_t first = view.data - whole.data - whole.ld;
    int64_t count = 0;
    for (int64_t i = 0; i < whole.rows; i++)
      for (int64_t j = 0; j < whole.cols; j++) {
        const bool inside = i >= 1 && i <= view.rows && j >= first && j < first + view.cols;
        count += !inside && std::bit_cast<Bits>(values[size_t(i * whole.cols + j)]) != poison;
      }
    return count;
  };
  for (size_t b = 0; b < blocks_.size(); b++) {
    Block& block = blocks_[b];
    int64_t count = block.whole.data
                        ? changed(read(block.whole).v, kPoison, block.whole, block.view)
                        : changed(read(block.grad_whole).v, kGradPoison, block.grad_whole, block.grad_view);
    if (count)
      fail(__FILE__, __LINE__,
           what + ": tensor " + std::to_string(b) + " of the case: " + std::to_string(count) +
               " cells around it were written");
  }
}

// ---- outputs

void Outputs::add(std::string name, const Mat& x, const Bound& bound, double relative) {
  Output out{std::move(name), std::max<int64_t>(x.cols, 1), {x.v.begin(), x.v.end()}, {}, relative};
  for (int64_t i = 0; i < x.rows; i++)
    for (int64_t j = 0; j < x.cols; j++) out.bound.push_back(bound(i, j));
  all_.push_back(std::move(out));
}

void Outputs::add(std::string name, const GradMat& x, const Bound& bound, double relative) {
  Output out{std::move(name), std::max<int64_t>(x.cols, 1), x.v, {}, relative};
  for (int64_t i = 0; i < x.rows; i++)
    for (int64_t j = 0; j < x.cols; j++) out.bound.push_back(bound(i, j));
  all_.push_back(std::move(out));
}

void Outputs::add_list(std::string name, std::vector<double> x, const Bound& bound) {
  GradMat column(int64_t(x.size()), 1);
  column.v = std::move(x);
  add(std::move(name), column, bound);
}

// ---- backends

Backend& reference_backend() {
  static const std::unique_ptr<Backend> backend = make_reference_backend();
  return *backend;
}

void skip(size_t test, const std::string& why) { tests()[test].claim += " # SKIP " + why; }

// ---- hashes

void Hash::add(double value) { add(std::isnan(value) ? uint64_t(0x7ff8000000000000) : std::bit_cast<uint64_t>(value)); }

std::string Hash::hex() const {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(state_));
  return text;
}

std::vector<NamedOperation>& operations() {
  static std::vector<NamedOperation> all;
  return all;
}

void print_operation_hashes() {
  Backend* backend = nullptr;
  for (size_t i = 0; i < fast_backends().size() && !backend; i++) backend = fast_backend(i);
  if (!backend) throw Error("ERR_CPU_UNSUPPORTED", "Expected a CPU that one of the fast backends can run on");
  for (const NamedOperation& operation : operations())
    for (const Case& each : operation.cases()) {
      const Outputs outputs = each.run(*backend);
      for (const auto& output : outputs.all()) {
        Hash hash;
        hash.add(output.value);
        std::printf("%s | %s | %s | %s\n", operation.name.c_str(), each.name.c_str(), output.name.c_str(),
                    hash.hex().c_str());
      }
    }
}

// ---- the three tests of every operation

// One failure for each output, with the worst element.
void compare(const std::string& name, const Outputs& ours, const Outputs& theirs, bool bitwise, double slack) {
  if (ours.all().size() != theirs.all().size()) return fail(__FILE__, __LINE__, name + ": not the same outputs");
  for (size_t o = 0; o < ours.all().size(); o++) {
    const auto &a = ours.all()[o], &b = theirs.all()[o];
    if (a.value.size() != b.value.size()) return fail(__FILE__, __LINE__, name + " " + a.name + ": not the same size");
    size_t worst = 0, bad = 0;
    double worst_ratio = 0, all_error = 0, all = 0;
    for (size_t i = 0; i < a.value.size(); i++) {
      const double x = a.value[i], y = b.value[i];
      if (!std::isnan(y)) all += y * y;
      if (std::bit_cast<uint64_t>(x) == std::bit_cast<uint64_t>(y)) continue;
      const double error = std::abs(x - y);
      if (!std::isnan(error)) all_error += error * error;
      if (!bitwise && (error <= slack * b.bound[i] || (std::isnan(x) && std::isnan(y)))) continue;
      bad++;
      const double ratio = std::isnan(error) ? INFINITY : error / (slack * b.bound[i]);
      if (bad == 1 || ratio > worst_ratio) worst = i, worst_ratio = ratio;
    }
    if (bad)
      fail(__FILE__, __LINE__,
           name + ": " + a.name + "[" + std::to_string(int64_t(worst) / a.cols) + ", " +
               std::to_string(int64_t(worst) % a.cols) + "] is " + show(a.value[worst]) + ", expected " +
               show(b.value[worst]) + (bitwise ? "" : " within " + show(slack * b.bound[worst])) + "; " +
               std::to_string(bad) + " of " + std::to_string(a.value.size()) + " differ");
    if (!bitwise && std::sqrt(all_error) > b.relative * std::sqrt(all))
      fail(__FILE__, __LINE__,
           name + ": " + a.name + " has a relative error of " + show(std::sqrt(all_error / all)) +
               ", expected at most " + show(b.relative));
  }
}

void check_against_reference(Cases cases, Backend& backend) {
  // What the reference says is kept for the next backend: it is the slow one.
  static std::map<Cases, std::vector<Outputs>> known;
  std::vector<Outputs>& expected = known[cases];
  const std::vector<Case> all = cases();
  for (size_t i = 0; i < all.size(); i++) {
    if (i == expected.size()) expected.push_back(all[i].run(reference_backend()));
    compare(all[i].name, all[i].run(backend), expected[i], false);
  }
}

void check_against(Cases cases, Backend& backend, Backend& reference, double slack) {
  for (const Case& each : cases()) compare(each.name, each.run(backend), each.run(reference), false, slack);
}

void check_same_bits(Cases cases, Backend& a, Backend& b) {
  for (const Case& each : cases()) compare(each.name, each.run(b), each.run(a), true);
}

}  // namespace rolegrad::testing
