#include "attention_cases.h"

#include <cmath>

#include "random_shapes.h"

namespace rolegrad::testing {

namespace {

/// Heads of any size, 1 to 7 queries a key; now and then a sequence of more than one split of 512 keys.
AttentionCase random_attention(int run, bool whole) {
  Choices choose(whole ? 2 : 3, run);
  AttentionCase c;
  c.kv_heads = choose.between(1, 3);
  c.heads = c.kv_heads * choose.between(1, 7);
  c.head_dim = choose.size(1, 40, 130);
  for (int s = choose.between(1, 4); s > 0; s--) {
    const int length =
        choose.chance(0.15) && c.heads * c.head_dim < 150 ? choose.between(513, 700) : choose.between(1, 150);
    const int start = whole ? 0 : choose.between(0, length - 1);
    c.pieces.push_back({start, choose.chance(0.5) && !whole ? 1 : length - start});
  }
  c.name = choose.name(std::to_string(c.heads) + " heads on " + std::to_string(c.kv_heads) + " of " +
                       std::to_string(c.head_dim));
  return c;
}

std::vector<AttentionCase> with_random(std::vector<AttentionCase> cases, bool whole) {
  for (int run = 0; run < shape_runs(6); run++) cases.push_back(random_attention(run, whole));
  return cases;
}

}  // namespace

const std::vector<AttentionCase>& whole_sequences() {
  static const std::vector<AttentionCase> cases = with_random(
      {
          {"one position", 2, 2, 16, {{0, 1}}},
          {"lengths about a page", 2, 1, 16, {{0, 63}, {0, 64}, {0, 65}}},
          {"several sequences, two queries a key", 4, 2, 32, {{0, 1}, {0, 130}, {0, 7}, {0, 64}}},
          {"seven queries a key, head of 64", 7, 1, 64, {{0, 70}, {0, 13}}},
          {"14 heads on 2, head of 64", 14, 2, 64, {{0, 33}}},
          {"head of 128", 2, 2, 128, {{0, 65}, {0, 2}}},
          {"one split, and a position more", 2, 1, 16, {{0, 512}, {0, 513}}},
          {"three splits", 1, 1, 16, {{0, 1027}}},
      },
      true);
  return cases;
}

const std::vector<AttentionCase>& pieces_of_sequences() {
  static const std::vector<AttentionCase> cases = with_random(
      {
          {"one token after one", 2, 2, 16, {{1, 1}}},
          {"decode at the edges of pages and splits",
           2,
           1,
           16,
           {{0, 1}, {62, 1}, {63, 1}, {64, 1}, {65, 1}, {129, 1}, {511, 1}, {512, 1}, {513, 1}, {1023, 1}, {1024, 1}}},
          {"decode, seven queries a key", 14, 2, 64, {{40, 1}, {700, 1}}},
          {"decode, head of 128", 3, 3, 128, {{530, 1}, {5, 1}}},
          {"a tool's text after a prompt", 4, 2, 32, {{100, 37}, {0, 5}, {64, 64}}},
          {"a chunk across a split", 2, 1, 16, {{500, 30}, {512, 3}}},
      },
      false);
  return cases;
}

const std::vector<AttentionCase>& spans_of_roles() {
  static const std::vector<AttentionCase> cases{
      {"roles that change at every page", 2, 1, 16, {{0, 200}}, 64},
      {"roles that change within pages", 4, 2, 32, {{0, 330}, {0, 90}}, 100},
      {"a role for more than two pages", 2, 2, 20, {{0, 310}}, 150},
  };
  return cases;
}

AttentionData::AttentionData(AttentionCase case_, uint64_t seed) : test(std::move(case_)) {
  Numbers numbers(seed);
  int64_t rows = 0, positions = 0;
  for (const Piece& piece : test.pieces) rows += piece.count, positions += piece.start + piece.count;
  const int64_t d = test.head_dim;
  q = numbers.matrix(rows, test.heads * d, 2);
  k = numbers.matrix(positions, test.kv_heads * d, 2);
  v = numbers.matrix(positions, test.kv_heads * d);
  dout = numbers.matrix(rows, test.heads * d);
  for (int64_t t = 0; t < rows; t++)
    roles.push_back(test.span ? int8_t(t / test.span % 3 - 1) : int8_t(numbers.below(3) - 1));
}

AttentionShape AttentionData::shape() const {
  return {test.heads, test.kv_heads, test.head_dim, float(1 / std::sqrt(double(test.head_dim)))};
}

int64_t AttentionData::first_row(size_t s) const {
  int64_t row = 0;
  for (size_t i = 0; i < s; i++) row += test.pieces[i].start + test.pieces[i].count;
  return row;
}

PlacedPages::PlacedPages(Place& place, const AttentionShape& shape, const std::vector<int64_t>& lengths, int layers)
    : place_(place), shape_(shape) {
  int64_t total = 1;  // one page belongs to nobody
  for (int64_t length : lengths) total += (length + KvPages::kPage - 1) / KvPages::kPage;
  kv_ = place.backend().kv_pages(layers, shape, total);

  std::vector<int32_t> every;
  for (int32_t page = 0; page < int32_t(total); page++) every.push_back(page);
  Mat stale(total * KvPages::kPage, shape.kv_heads * shape.head_dim);
  for (float& value : stale.v) value = NAN;
  Tensor nan = place.put(stale);
  for (int layer = 0; layer < layers; layer++)
    place.backend().kv_write(*kv_, layer, shape, nan, nan, std::vector<SequenceSpan>{{0, nan.rows, 0, every}});

  int32_t next = int32_t(total) - 1;
  for (int64_t length : lengths) lists_.emplace_back(size_t((length + KvPages::kPage - 1) / KvPages::kPage));
  for (size_t round = 0; next > 0; round++)
    for (auto& list : lists_)
      if (round < list.size()) list[round] = next--;
}

void PlacedPages::write(size_t s, int64_t start, int64_t count, const Mat& k, const Mat& v, int64_t row, int layer) {
  if (count == 0) return;
  place_.backend().kv_write(*kv_, layer, shape_, place_.put(k.row_range(row, count)),
                            place_.put(v.row_range(row, count)), std::vector<SequenceSpan>{span(s, 0, start, count)});
}

namespace {

std::vector<int64_t> lengths(const AttentionData& data) {
  std::vector<int64_t> out;
  for (const Piece& piece : data.test.pieces) out.push_back(piece.start + piece.count);
  return out;
}

}  // namespace

PlacedSequences::PlacedSequences(Place& place, const AttentionData& data) : pages(place, data.shape(), lengths(data)) {
  // What came before, sequence by sequence; then the batch's rows of all sequences at once.
  int64_t rows = 0;
  Mat k(data.q.rows, data.k.cols), v(data.q.rows, data.v.cols);
  for (size_t s = 0; s < data.test.pieces.size(); s++) {
    const auto [start, count] = data.test.pieces[s];
    pages.write(s, 0, start, data.k, data.v, data.first_row(s));
    spans.push_back(pages.span(s, rows, start, count));
    for (int64_t i = 0; i < count; i++, rows++)
      for (int64_t c = 0; c < k.cols; c++) {
        k(rows, c) = data.k(data.first_row(s) + start + i, c);
        v(rows, c) = data.v(data.first_row(s) + start + i, c);
      }
  }
  place.backend().kv_write(pages.kv(), 0, data.shape(), place.put(k), place.put(v), spans);
}

AttentionResult run_attention(Backend& backend, const AttentionData& data) {
  Place place(backend);
  PlacedSequences placed(place, data);
  Tensor out = place.poison(data.q.rows, data.q.cols), lse = place.poison(data.q.rows, data.test.heads);
  backend.attention(out, lse, place.put(data.q), placed.pages.kv(), 0, data.shape(), placed.spans);
  place.guards("attention, " + data.test.name);
  return {place.read(out), place.read(lse)};
}

AttentionGradients run_attention_backward(Backend& backend, const AttentionData& data, bool stop) {
  Place place(backend);
  PlacedSequences placed(place, data);
  Tensor out = place.poison(data.q.rows, data.q.cols), lse = place.poison(data.q.rows, data.test.heads);
  Tensor dq = place.poison(data.q.rows, data.q.cols), q = place.put(data.q);
  Tensor dk = place.poison(data.k.rows, data.k.cols), dv = place.poison(data.v.rows, data.v.cols);
  backend.attention(out, lse, q, placed.pages.kv(), 0, data.shape(), placed.spans);
  backend.attention_backward(dq, dk, dv, place.put(data.dout), q, out, lse, placed.pages.kv(), 0, data.shape(),
                             placed.spans, stop ? std::span<const int8_t>(data.roles) : std::span<const int8_t>());
  place.guards("attention_backward, " + data.test.name);
  return {place.read(dq), place.read(dk), place.read(dv)};
}

}  // namespace rolegrad::testing
