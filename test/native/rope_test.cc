// The frequencies of rope, plain and of type "llama3".
#include "core/error.h"
#include "core/math.h"
#include "harness.h"
#include "model/model.h"

using namespace rolegrad;

TEST("rope frequencies are theta^(-2 i / head_dim)") {
  const auto frequencies = rope_frequencies(10000, 8, {});
  const double expected[] = {1, 0.1, 0.01, 0.001};
  CHECK_EQUAL(frequencies.size(), 4);
  for (size_t i = 0; i < 4; i++) CHECK_CLOSE(frequencies[i], expected[i], 1e-15);
}

TEST("rope type llama3 keeps short wavelengths, divides long ones by the factor and joins both smoothly") {
  // Llama 3.1's: 64 frequencies, the bounds of the bands at wavelengths of 8192 / 4 and 8192 / 1.
  const auto plain = rope_frequencies(500000, 128, {}), scaled = rope_frequencies(500000, 128, {8, 1, 4, 8192});
  int kept = 0, joined = 0, divided = 0;
  for (size_t i = 0; i < 64; i++) {
    const double wavelength = 6.283185307179586 / plain[i];
    if (wavelength < 2048) {
      CHECK_EQUAL(scaled[i], plain[i]);
      kept++;
    } else if (wavelength > 8192) {
      CHECK_EQUAL(scaled[i], plain[i] / 8);
      divided++;
    } else {
      const double smooth = (8192 / wavelength - 1) / 3;
      CHECK_CLOSE(scaled[i], (1 - smooth) * plain[i] / 8 + smooth * plain[i], 1e-15 * plain[i]);
      CHECK(scaled[i] < scaled[i - 1] && scaled[i] > plain[i] / 8 && scaled[i] < plain[i]);
      joined++;
    }
  }
  CHECK(kept > 0 && joined > 0 && divided > 0);
}

TEST("a rope scaling without a band between long and short is refused") {
  CHECK_THROWS("ERR_MODEL_CONFIG", rope_frequencies(10000, 8, {8, 4, 4, 32}));
  CHECK_THROWS("ERR_MODEL_CONFIG", rope_frequencies(10000, 8, {0, 1, 4, 32}));
  CHECK_THROWS("ERR_MODEL_CONFIG", rope_frequencies(10000, 8, {8, 1, 4, 0}));
}
