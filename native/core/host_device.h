#pragma once

// Functions that kernels call too. They are written once: the device computes with the same arithmetic, so its bits are
// the host's.
#if defined(__CUDACC__)
#define ROLEGRAD_HOST_DEVICE __host__ __device__
#else
#define ROLEGRAD_HOST_DEVICE
#endif
