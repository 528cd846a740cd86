// rmsnorm, by row and by head, and its backward pass, against the reference.
#include <cmath>

#include "op_cases.h"
#include "random_shapes.h"

using namespace rolegrad;
using namespace rolegrad::testing;

namespace {

struct NormCase {
  std::string name;
  std::vector<int32_t> cu;
  int64_t cols;
  double size = 1;
  float eps = 1e-6f;
};

const std::vector<NormCase> kNorms = [] {
  std::vector<NormCase> norms{
      {"1 x 1", {0, 1}, 1},
      {"1 x 16", {0, 1}, 16},
      {"47 x 50", {0, 13, 47}, 50},
      {"5 x 64", {0, 5}, 64},
      {"3 x 897", {0, 2, 3}, 897},
      {"200 x 33", {0, 100, 130, 200}, 33},
      {"small numbers, where eps counts", {0, 6}, 48, 1e-3, 1e-5f},
      {"large numbers", {0, 6}, 48, 1e6},
  };
  for (int run = 0; run < shape_runs(4); run++) {
    Choices choose(6, run);
    NormCase norm{"", {0}, choose.size(1, 130, 1500)};
    for (int n = choose.between(1, 4); n > 0; n--) norm.cu.push_back(norm.cu.back() + choose.between(1, 50));
    norm.name = choose.name(std::to_string(norm.cu.back()) + " x " + std::to_string(norm.cols));
    norms.push_back(std::move(norm));
  }
  return norms;
}();

std::vector<Case> rmsnorm_cases() {
  std::vector<Case> cases;
  for (const NormCase& each : kNorms)
    cases.push_back({each.name, [each](Backend& backend) {
                       Numbers numbers(31);
                       Place place(backend);
                       Mat x = numbers.matrix(each.cu.back(), each.cols, each.size),
                           w = numbers.matrix(1, each.cols, 2);
                       for (int64_t j = 0; j < x.cols; j++)
                         x(x.rows - 1, j) = each.name == "5 x 64" ? 0 : x(x.rows - 1, j);
                       Tensor y = place.poison(x.rows, x.cols);
                       backend.rmsnorm(y, place.put(x), place.put(w), each.eps);
                       place.guards(each.name);
                       const Mat result = place.read(y);
                       Outputs out;
                       // The mean of squares has only positive terms: off by eps log2(n), half of it in the root.
                       const double relative = kEps * (4 + std::log2(double(x.cols) + 1));
                       out.add("y", result, [&](int64_t t, int64_t j) { return relative * std::abs(result(t, j)); });
                       return out;
                     }});
  return cases;
}
OPERATION("rmsnorm", rmsnorm_cases);

std::vector<Case> rmsnorm_backward_cases() {
  std::vector<Case> cases;
  for (const NormCase& each : kNorms)
    cases.push_back(
        {each.name, [each](Backend& backend) {
           Numbers numbers(32);
           Place place(backend);
           const Rows rows(each.cu);
           const Mat x = numbers.matrix(each.cu.back(), each.cols, each.size), w = numbers.matrix(1, each.cols, 2);
           const Mat dy = numbers.matrix(x.rows, x.cols), before = numbers.matrix(x.rows, x.cols);
           const GradMat dw_before = numbers.gradient(1, x.cols);
           Tensor tx = place.put(x), tw = place.put(w), tdy = place.put(dy);
           Tensor written = place.poison(x.rows, x.cols), added = place.put(before);
           GradTensor dw = place.put(dw_before);
           backend.rmsnorm_backward(written, &dw, tdy, tx, tw, each.eps, rows.all(), false);
           backend.rmsnorm_backward(added, nullptr, tdy, tx, tw, each.eps, rows.all(), true);
           place.guards(each.name);

           const auto xs = x.row_norms(), dys = dy.row_norms();
           auto scale = [&](int64_t t) {
             return 1 / std::sqrt(xs[size_t(t)] * xs[size_t(t)] / double(x.cols) + each.eps);
           };
           // |dx| <= s |w| |dy| + s |x_j| / |x| sqrt(..): both parts are bounded by s max|w| |dy|.
           auto dx_bound = [&](int64_t t, int64_t) {
             return 4 * kEps * (4 + std::sqrt(double(x.cols))) * scale(t) * 2 * dys[size_t(t)] + 2 * kEps;
           };
           Outputs out;
           out.add("dx", place.read(written), dx_bound);
           out.add("dx, accumulated", place.read(added), dx_bound);
           out.add("dw", place.read(dw), [&](int64_t, int64_t) {
             // x s is below sqrt(H) in size.
             return 4 * kEps * std::sqrt(double(x.rows) * double(x.cols)) * std::sqrt(double(x.rows) + 16) + 1e-15;
           });
           return out;
         }});
  return cases;
}
OPERATION("rmsnorm_backward", rmsnorm_backward_cases);

// ---- by head

struct HeadNormCase {
  std::string name;
  std::vector<int32_t> cu;
  int64_t heads, cols;  // of a head
  double size = 1;
  float eps = 1e-6f;
};

const std::vector<HeadNormCase> kHeadNorms{
    {"one head of one", {0, 1}, 1, 1},         {"3 heads of 16", {0, 4, 5}, 3, 16},
    {"5 heads of 6", {0, 13, 47}, 5, 6},       {"2 heads of 50", {0, 100, 130, 150}, 2, 50},
    {"14 heads of 128", {0, 20, 33}, 14, 128}, {"small numbers, where eps counts", {0, 6}, 2, 40, 1e-3, 1e-5f},
    {"large numbers", {0, 6}, 2, 40, 1e6},
};

std::vector<Case> rmsnorm_heads_cases() {
  std::vector<Case> cases;
  for (const HeadNormCase& each : kHeadNorms)
    cases.push_back({each.name, [each](Backend& backend) {
                       Numbers numbers(33);
                       Place place(backend);
                       Mat x = numbers.matrix(each.cu.back(), each.heads * each.cols, each.size);
                       Mat w = numbers.matrix(1, each.cols, 2);
                       if (each.heads == 3)
                         for (int64_t j = 0; j < each.cols; j++) x(0, each.cols + j) = 0;
                       Tensor y = place.poison(x.rows, x.cols), in_place = place.put(x), tw = place.put(w);
                       backend.rmsnorm_heads(y, place.put(x), tw, each.eps);
                       backend.rmsnorm_heads(in_place, in_place, tw, each.eps);
                       place.guards(each.name);
                       const Mat result = place.read(y);
                       CHECK_SAME_BITS(place.read(in_place), result);
                       Outputs out;
                       const double relative = kEps * (4 + std::log2(double(each.cols) + 1));
                       out.add("y", result, [&](int64_t t, int64_t j) { return relative * std::abs(result(t, j)); });
                       return out;
                     }});
  return cases;
}
OPERATION("rmsnorm_heads", rmsnorm_heads_cases);

std::vector<Case> rmsnorm_heads_backward_cases() {
  std::vector<Case> cases;
  for (const HeadNormCase& each : kHeadNorms)
    cases.push_back(
        {each.name, [each](Backend& backend) {
           Numbers numbers(34);
           Place place(backend);
           const Rows rows(each.cu);
           const Mat x = numbers.matrix(each.cu.back(), each.heads * each.cols, each.size);
           const Mat w = numbers.matrix(1, each.cols, 2), dy = numbers.matrix(x.rows, x.cols);
           Tensor tx = place.put(x), tw = place.put(w), tdy = place.put(dy);
           Tensor dx = place.poison(x.rows, x.cols), in_place = place.put(dy), alone = place.poison(x.rows, x.cols);
           GradTensor dw = place.put(numbers.gradient(1, each.cols)), dw_in_place = place.put(GradMat(1, each.cols));
           backend.rmsnorm_heads_backward(dx, &dw, tdy, tx, tw, each.eps, rows.all());
           backend.rmsnorm_heads_backward(in_place, &dw_in_place, in_place, tx, tw, each.eps, rows.all());
           backend.rmsnorm_heads_backward(alone, nullptr, tdy, tx, tw, each.eps, rows.all());
           place.guards(each.name);
           CHECK_SAME_BITS(place.read(in_place), place.read(dx));
           CHECK_SAME_BITS(place.read(alone), place.read(dx));

           auto head = [&](const Mat& m, int64_t t, int64_t j) {
             double sum = 0;
             for (int64_t i = j / each.cols * each.cols; i < (j / each.cols + 1) * each.cols; i++)
               sum += double(m(t, i)) * m(t, i);
             return std::sqrt(sum);
           };
           Outputs out;
           // As rmsnorm_backward's, a head a row.
           out.add("dx", place.read(dx), [&](int64_t t, int64_t j) {
             const double norm = head(x, t, j), scale = 1 / std::sqrt(norm * norm / double(each.cols) + each.eps);
             return 4 * kEps * (4 + std::sqrt(double(each.cols))) * scale * 2 * head(dy, t, j) + 2 * kEps;
           });
           const double terms = double(x.rows) * double(each.heads);
           auto dw_bound = [&](int64_t, int64_t) {
             return 4 * kEps * std::sqrt(terms * double(each.cols)) * std::sqrt(terms + 16) + 1e-15;
           };
           out.add("dw", place.read(dw), dw_bound);
           out.add("dw, in place", place.read(dw_in_place), dw_bound);
           return out;
         }});
  return cases;
}
OPERATION("rmsnorm_heads_backward", rmsnorm_heads_backward_cases);

}  // namespace
