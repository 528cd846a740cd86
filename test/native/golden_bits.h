#pragma once
// Written by `npm run golden`: hashes of the runs of golden.cc.

namespace rolegrad::testing {

inline constexpr int kGoldenNumericsVersion = 1;
// clang-format off
inline constexpr struct {
  const char *name, *hash;
} kGoldenBits[] = {
    {"f32, own head, flow: rollouts", "f02db52b50ebcc42"},
    {"f32, own head, flow: losses", "431eaa80a58762d4"},
    {"f32, own head, flow: gradients", "d599cdbe68d1368e"},
    {"f32, own head, flow: adapters", "7ffd69436a8f1410"},
    {"f32, own head, flow: moments", "1c9fb543e266e427"},
    {"f32, own head, flow: after", "d33de9ca6e243104"},
    {"bf16, tied head, stop: rollouts", "69e1a80252292763"},
    {"bf16, tied head, stop: losses", "0b2de56307303e81"},
    {"bf16, tied head, stop: gradients", "179e2f7e06e786da"},
    {"bf16, tied head, stop: adapters", "1aa441c5dad63250"},
    {"bf16, tied head, stop: moments", "9173c0862fff714f"},
    {"bf16, tied head, stop: after", "c052c5798c97eb18"},
    {"bf16, rope of llama3, exact: rollouts", "b6fce2af241533f2"},
    {"bf16, rope of llama3, exact: losses", "472417e045a9b7a4"},
    {"bf16, rope of llama3, exact: gradients", "93381687f600eae0"},
    {"bf16, rope of llama3, exact: adapters", "e65c92f5faf34db8"},
    {"bf16, rope of llama3, exact: moments", "9f39161f040c8876"},
    {"bf16, rope of llama3, exact: after", "531988fe1df4afd4"},
    {"full, own head: parameters", "aa4fcdec0fe2a43e"},
    {"full, tied head: parameters", "ee4fdd6dfe3f8805"},
};
// clang-format on

}  // namespace rolegrad::testing
