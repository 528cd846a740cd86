# What the library is made of, for nvcc (CMakeLists.txt beside this file) and for the emulated twin (the package's own
# CMakeLists.txt, test builds).
set(CUDA_KERNELS
  native/cuda/kernels/attention.cu
  native/cuda/kernels/attention_backward.cu
  native/cuda/kernels/gradient.cu
  native/cuda/kernels/head.cu
  native/cuda/kernels/norm.cu
  native/cuda/kernels/product.cu
  native/cuda/kernels/rows.cu
  native/cuda/kernels/soft.cu
  native/cuda/kernels/train.cu
)
set(CUDA_DEVICE native/cuda/device_cuda.cc native/cuda/table.cc)
set(CUDA_EMULATED
  native/cuda/device_emulated.cc
  native/cuda/table.cc
  native/cuda/emulation/emulation.cc
  native/cuda/emulation/fibre.cc
)
