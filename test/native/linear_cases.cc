#include "linear_cases.h"

#include <algorithm>
#include <numeric>

#include "random_shapes.h"

namespace rolegrad::testing {

namespace {

/// Up to 8 adapters of ranks 1 to 17 (one in six without pairs here), 1 to 3 modules, f32 or bf16.
LinearShape random_linear(int run) {
  Choices choose(1, run);
  LinearShape s;
  int64_t rows = 0;
  for (int64_t left = choose.size(1, 40, 200); left > 0; left -= s.lengths.back()) {
    s.lengths.push_back(std::min<int64_t>(left, choose.between(1, 60)));
    rows += s.lengths.back();
  }
  s.k = choose.size(1, 90, 800);
  for (int m = choose.between(1, 3); m > 0; m--) s.n.push_back(choose.size(1, 70, 300));
  for (int v = choose.between(1, 8); v > 0; v--) s.ranks.push_back(choose.chance(1.0 / 6) ? 0 : choose.between(1, 17));
  s.routes.clear();
  for (int64_t t = 0; t < rows; t++) {
    if (t > 0 && choose.chance(0.6)) {
      s.routes += s.routes.back();  // spans
    } else {
      const int route = choose.between(-1, int(s.ranks.size()) - 1);
      s.routes += route < 0 ? '.' : char('0' + route);
    }
  }
  if (choose.chance(0.3))
    for (size_t m = 0; m < s.n.size(); m++) s.present.push_back(choose.chance(0.7));
  if (choose.chance(0.5)) s.dtype = DType::bf16;
  s.bias = choose.chance(0.5);
  s.name = choose.name(std::to_string(rows) + " x " + std::to_string(s.k) + ", " + std::to_string(s.n.size()) +
                       " modules, " + std::to_string(s.ranks.size()) + " adapters");
  return s;
}

std::vector<LinearShape> with_random(std::vector<LinearShape> shapes) {
  for (int run = 0; run < shape_runs(10); run++) shapes.push_back(random_linear(run));
  return shapes;
}

}  // namespace

const std::vector<LinearShape>& linear_shapes() {
  static const DType bf16 = DType::bf16;
  static const std::vector<LinearShape> shapes = with_random({
      {.name = "1 x 64 x 64, no adapter", .lengths = {1}, .k = 64, .n = {64}},
      {.name = "1 x 1 x 1, no adapter", .lengths = {1}, .k = 1, .n = {1}, .bias = true},
      {.name = "13 x 50 x 37, bias", .lengths = {13}, .k = 50, .n = {37}, .bias = true},
      {.name = "13 x 50 x 37, bf16, bias", .lengths = {13}, .k = 50, .n = {37}, .dtype = bf16, .bias = true},
      {.name = "one row, rank 3", .lengths = {1}, .k = 33, .n = {47}, .ranks = {3}, .routes = "0"},
      {.name = "47 rows, one adapter of rank 8", .lengths = {30, 17}, .k = 96, .n = {80}, .ranks = {8}, .routes = "0"},
      {.name = "200 rows, one adapter of rank 8, bf16",
       .lengths = {64, 65, 71},
       .k = 130,
       .n = {97},
       .ranks = {8},
       .routes = "0",
       .dtype = bf16},
      {.name = "two adapters row by row", .lengths = {9, 14}, .k = 64, .n = {72}, .ranks = {8, 8}, .routes = "01"},
      {.name = "three adapters of ranks 1, 8, 13, rows without one",
       .lengths = {5, 1, 40, 23},
       .k = 77,
       .n = {101},
       .ranks = {1, 8, 13},
       .routes = "00.1122220.1"},
      {.name = "spans of two adapters over a group of three modules with biases, bf16",
       .lengths = {31, 48},
       .k = 64,
       .n = {64, 32, 32},
       .ranks = {8, 4},
       .routes = "00000000111110000000000011",
       .dtype = bf16,
       .bias = true},
      {.name = "three modules of odd widths, three adapters",
       .lengths = {2, 3, 44},
       .k = 50,
       .n = {41, 7, 19},
       .ranks = {5, 16, 2},
       .routes = "0.012120000"},
      {.name = "two modules, 70 columns each",
       .lengths = {53},
       .k = 64,
       .n = {70, 70},
       .ranks = {8},
       .routes = "0000."},
      {.name = "an adapter without rows", .lengths = {21}, .k = 40, .n = {33}, .ranks = {4, 8}, .routes = "1"},
      {.name = "an adapter without pairs here",
       .lengths = {21, 8},
       .k = 40,
       .n = {33, 20},
       .ranks = {4, 0, 8},
       .routes = "0112"},
      {.name = "adapters, and no row that runs one", .lengths = {6}, .k = 40, .n = {33}, .ranks = {4}, .routes = "."},
      {.name = "pairs on the first and last of three modules",
       .lengths = {26, 9},
       .k = 48,
       .n = {48, 16, 24},
       .ranks = {8, 3},
       .routes = "0011.",
       .present = {true, false, true}},
      {.name = "pairs on the second of two modules, one row",
       .lengths = {1},
       .k = 48,
       .n = {30, 31},
       .ranks = {6},
       .routes = "0",
       .present = {false, true}},
      {.name = "ranks 3, 0, 9 of three modules beside 4, 5, 0, each of its own scale",
       .lengths = {26, 1, 40},
       .k = 48,
       .n = {48, 17, 24},
       .routes = "0011.0",
       .module_ranks = {{3, 0, 9}, {4, 5, 0}},
       .module_scales = true},
      {.name = "ranks 2 and 16 of two modules with one scale, bf16",
       .lengths = {33},
       .k = 70,
       .n = {60, 60},
       .routes = "0",
       .module_ranks = {{2, 16}},
       .dtype = bf16},
      {.name = "an adapter on the first module alone, one on the second, one on none",
       .lengths = {19, 30},
       .k = 33,
       .n = {20, 31},
       .routes = "0122011",
       .module_ranks = {{5, 0}, {0, 1}, {0, 0}},
       .module_scales = true},
      {.name = "one row, ranks 1 and 20, scales of their own",
       .lengths = {1},
       .k = 64,
       .n = {64, 96},
       .routes = "0",
       .module_ranks = {{1, 20}},
       .module_scales = true,
       .bias = true},
      {.name = "1000 wide, 5 rows", .lengths = {5}, .k = 1000, .n = {600}, .ranks = {16}, .routes = "0", .dtype = bf16},
      {.name = "wider than a block, 40 rows, rank 32",
       .lengths = {40},
       .k = 900,
       .n = {330},
       .ranks = {32, 32},
       .routes = "00001111."},
  });
  return shapes;
}

namespace {

std::vector<std::vector<int>> ranks_of(const LinearShape& shape) {
  if (!shape.module_ranks.empty()) return shape.module_ranks;
  std::vector<std::vector<int>> out;
  for (int r : shape.ranks) {
    out.emplace_back(shape.n.size(), r);
    for (size_t m = 0; m < shape.present.size(); m++)
      if (!shape.present[m]) out.back()[m] = 0;
  }
  return out;
}

}  // namespace

LinearData::LinearData(LinearShape shape_, uint64_t seed) : shape(std::move(shape_)) {
  Numbers numbers(seed);
  const auto ranks = ranks_of(shape);
  std::vector<int32_t> cu{0}, adapter;
  for (int64_t length : shape.lengths) cu.push_back(cu.back() + int32_t(length));
  for (int32_t t = 0; t < cu.back(); t++) {
    const char route = shape.routes[size_t(t) % shape.routes.size()];
    adapter.push_back(route == '.' ? -1 : route - '0');
  }
  rows = Rows(cu, adapter, int(ranks.size()));
  x = numbers.matrix(rows.count(), shape.k);
  dy = numbers.matrix(rows.count(), total_n());
  for (int64_t n : shape.n) {
    w.push_back(shape.dtype == DType::bf16 ? numbers.bf16_matrix(n, shape.k, 0.5) : numbers.matrix(n, shape.k, 0.5));
    bias.push_back(numbers.matrix(1, n));
  }
  for (const auto& each : ranks) {
    const float scale = 1.0f + float(numbers.uniform());
    Pairs pair{each, {}, numbers.matrix(std::accumulate(each.begin(), each.end(), int64_t(0)), shape.k, 0.5), {}};
    for (size_t m = 0; m < shape.n.size(); m++) {
      pair.scale.push_back(shape.module_scales ? scale + float(m) / 4 : scale);
      pair.bt.push_back(numbers.matrix(each[m], shape.n[m], 0.5));
    }
    pairs.push_back(std::move(pair));
  }
}

int64_t LinearData::Pairs::first(size_t m) const {
  return std::accumulate(rank.begin(), rank.begin() + int64_t(m), int64_t(0));
}

int64_t LinearData::total_n() const { return std::accumulate(shape.n.begin(), shape.n.end(), int64_t(0)); }

int64_t LinearData::u_cols() const {
  int64_t most = 0;
  for (const Pairs& pair : pairs) most = std::max(most, pair.a.rows);
  return most;
}

Mat LinearData::all_weights() const {
  Mat all(total_n(), shape.k);
  auto to = all.v.begin();
  for (const Mat& module : w) to = std::copy(module.v.begin(), module.v.end(), to);
  return all;
}

PlacedPairs::PlacedPairs(Place& place, const LinearData& data) {
  const size_t modules = data.shape.n.size();
  for (size_t v = 0; v < data.pairs.size(); v++) {
    const auto& pair = data.pairs[v];
    LoraGroup group;
    for (size_t m = 0; m < modules; m++) {
      group.add(pair.rank[m], pair.scale[m]);
      group.bt.push_back(pair.rank[m] > 0 ? place.put(pair.bt[m]) : Tensor{});
      group.b.push_back(pair.rank[m] > 0 ? place.poison(data.shape.n[m], pair.rank[m]) : Tensor{});
    }
    if (group.columns() > 0) {
      group.a = place.put(pair.a);
      group.at = place.poison(data.shape.k, group.columns());
    }
    place.backend().refresh_lora(group);
    groups_.push_back(std::move(group));
  }
  // Null, as the ranks of a whole adapter say, or a group without columns: both are an adapter without pairs.
  for (const LoraGroup& group : groups_)
    set_.push_back(group.columns() > 0 || !data.shape.module_ranks.empty() ? &group : nullptr);
}

PlacedGradients::PlacedGradients(Place& place, const LinearData& data, uint64_t seed) {
  Numbers numbers(seed);
  const size_t modules = data.shape.n.size();
  for (const auto& pair : data.pairs) {
    auto made = std::make_unique<LoraGradient>();
    if (pair.a.rows > 0) made->a = place.put(numbers.gradient(pair.a.rows, data.shape.k));
    for (size_t m = 0; m < modules; m++)
      made->bt.push_back(pair.rank[m] > 0 ? place.put(numbers.gradient(pair.rank[m], data.shape.n[m])) : GradTensor{});
    set_.push_back(pair.a.rows > 0 ? made.get() : nullptr);
    gradients_.push_back(std::move(made));
  }
}

std::vector<std::pair<std::string, GradMat>> PlacedGradients::read(Place& place) const {
  std::vector<std::pair<std::string, GradMat>> out;
  for (size_t v = 0; v < gradients_.size(); v++) {
    if (!set_[v]) continue;
    out.emplace_back("gradient of a of adapter " + std::to_string(v), place.read(gradients_[v]->a));
    for (size_t m = 0; m < gradients_[v]->bt.size(); m++)
      out.emplace_back("gradient of bt of adapter " + std::to_string(v) + ", module " + std::to_string(m),
                       place.read(gradients_[v]->bt[m]));
  }
  return out;
}

std::unique_ptr<PackedWeight> pack(Backend& backend, const LinearData& data) {
  return pack(backend, data, 0, data.shape.n.size());
}

std::unique_ptr<PackedWeight> pack(Backend& backend, const LinearData& data, size_t first, size_t count) {
  std::vector<std::vector<bf16>> narrow;
  std::vector<WeightSource> sources;
  for (size_t m = first; m < first + count; m++) {
    const void* from = data.w[m].v.data();
    if (data.shape.dtype == DType::bf16) {
      narrow.emplace_back();
      for (float value : data.w[m].v) narrow.back().push_back(float_to_bf16(value));
      from = narrow.back().data();
    }
    sources.push_back(
        {from, data.shape.dtype, data.shape.n[m], data.shape.k, data.shape.bias ? data.bias[m].v.data() : nullptr});
  }
  return backend.pack(sources);
}

LinearResult run_linear(Backend& backend, const LinearData& data) {
  Place place(backend);
  auto w = pack(backend, data);
  PlacedPairs pairs(place, data);
  Tensor y = place.poison(data.x.rows, data.total_n()), u = place.poison(data.x.rows, data.u_cols());
  backend.linear(y, u, place.put(data.x), *w, pairs.set(), data.rows);
  LinearResult result{place.read(y), place.read(u)};
  place.guards("linear " + data.shape.name);
  return result;
}

}  // namespace rolegrad::testing
