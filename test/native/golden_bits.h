#pragma once
// Written by `npm run golden`: hashes of the runs of golden.cc.

namespace rolegrad::testing {

inline constexpr int kGoldenNumericsVersion = 1;
// clang-format off
inline constexpr struct {
  const char *name, *hash;
} kGoldenBits[] = {
    {"f32, own head, flow: rollouts", "ca2970f2257f80ce"},
    {"f32, own head, flow: losses", "f962b42144df3ae8"},
    {"f32, own head, flow: gradients", "b09d6c0999e238a3"},
    {"f32, own head, flow: adapters", "3d5fc1bdf22d3d2e"},
    {"f32, own head, flow: moments", "06dd4ce0d3b8bee1"},
    {"f32, own head, flow: after", "fd7f60f368b1f9e6"},
    {"bf16, tied head, stop: rollouts", "b1feb197bbd9d566"},
    {"bf16, tied head, stop: losses", "672dc8c6aac1210a"},
    {"bf16, tied head, stop: gradients", "ddb01b72c38a10a0"},
    {"bf16, tied head, stop: adapters", "8d50ac12dc0f608e"},
    {"bf16, tied head, stop: moments", "f036a853bf83a231"},
    {"bf16, tied head, stop: after", "8c6c8c62491e2e44"},
    {"full, own head: parameters", "aa4fcdec0fe2a43e"},
    {"full, tied head: parameters", "ee4fdd6dfe3f8805"},
};
// clang-format on

}  // namespace rolegrad::testing
