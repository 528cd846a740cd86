#include "ops/rows.h"

#include "core/error.h"
#include "harness.h"

using namespace rolegrad;
using Indices = std::vector<int32_t>;

TEST("rows are grouped by adapter and cut by sequence") {
  const Rows rows({0, 3, 3, 7, 8}, {0, 1, 0, 1, 1, -1, 1, 0}, 3);
  CHECK_EQUAL(rows.count(), 8);
  CHECK_EQUAL(rows.sequences(), 4);
  CHECK_EQUAL(rows.adapters(), 3);
  CHECK(rows.of(0).rows == (Indices{0, 2, 7}));
  CHECK(rows.of(0).cuts == (Indices{0, 2, 3}));
  CHECK(rows.of(1).rows == (Indices{1, 3, 4, 6}));
  CHECK(rows.of(1).cuts == (Indices{0, 1, 4}));
  CHECK(rows.of(2).rows.empty());
  CHECK(rows.of(2).cuts == (Indices{0}));
  CHECK(rows.all().rows == (Indices{0, 1, 2, 3, 4, 5, 6, 7}));
  CHECK_EQUAL(rows.all().cuts.back(), 8);
}

TEST("rows without adapters are one group") {
  const Rows rows(Indices{0, 2, 5});
  CHECK_EQUAL(rows.count(), 5);
  CHECK_EQUAL(rows.adapters(), 0);
  CHECK(rows.all().cuts == (Indices{0, 2, 5}));
  for (int32_t adapter : rows.adapter()) CHECK_EQUAL(adapter, -1);
  CHECK_EQUAL(Rows().count(), 0);
  CHECK_EQUAL(Rows(Indices{0}).sequences(), 0);
}

TEST("rows that do not fit are refused") {
  CHECK_THROWS("ERR_INVALID_ARGUMENT", Rows({0, 3}, {0, 0}, 1));
  CHECK_THROWS("ERR_INVALID_ARGUMENT", Rows({1, 2}, {0, 0}, 1));
  CHECK_THROWS("ERR_INVALID_ARGUMENT", Rows({}, {}, 1));
  CHECK_THROWS("ERR_ROLE_RANGE", Rows({0, 2}, {0, 1}, 1));
  CHECK_THROWS("ERR_ROLE_RANGE", Rows({0, 2}, {0, -2}, 1));
}

// Cuts that go back would read past the end of the rows.
TEST("cuts that decrease are refused") { CHECK_THROWS("ERR_INVALID_ARGUMENT", Rows({0, 5, 3}, {-1, -1, -1}, 0)); }
