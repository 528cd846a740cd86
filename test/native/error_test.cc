#include "core/error.h"

#include "harness.h"

TEST("an engine error carries its code and its message") {
  const rolegrad::Error error("ERR_SHAPE", "Expected 3 rows for x but received 2");
  CHECK(error.code() == "ERR_SHAPE");
  CHECK(std::string(error.what()) == "Expected 3 rows for x but received 2");
  CHECK_THROWS("ERR_SHAPE", throw error);
}
