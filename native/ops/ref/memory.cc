#include <algorithm>

#include "ops/host_memory.h"
#include "ops/ref/ref_backend.h"

namespace rolegrad {

std::unique_ptr<Backend> make_reference_backend(Precision precision) {
  return std::make_unique<ref::RefBackend>(precision);
}

namespace ref {

namespace {

template <class T, class Value>
void write_rows(const T& to, const Value* from) {
  for (int64_t i = 0; i < to.rows; i++) std::copy_n(from + i * to.cols, to.cols, to.data + i * to.ld);
}

template <class T, class Value>
void read_rows(Value* to, const T& from) {
  for (int64_t i = 0; i < from.rows; i++) std::copy_n(from.data + i * from.ld, from.cols, to + i * from.cols);
}

template <class T>
void zero_rows(const T& x) {
  for (int64_t i = 0; i < x.rows; i++) std::fill_n(x.data + i * x.ld, x.cols, 0);
}

}  // namespace

std::unique_ptr<Memory> RefBackend::allocate(size_t bytes) { return std::make_unique<HostMemory>(bytes); }

void RefBackend::write(const Tensor& to, const float* from) { write_rows(to, from); }
void RefBackend::read(float* to, const Tensor& from) { read_rows(to, from); }
void RefBackend::write(const GradTensor& to, const double* from) { write_rows(to, from); }
void RefBackend::read(double* to, const GradTensor& from) { read_rows(to, from); }
void RefBackend::zero(const Tensor& x) { zero_rows(x); }
void RefBackend::zero(const GradTensor& x) { zero_rows(x); }

void RefBackend::copy(const Tensor& to, const Tensor& from) {
  for (int64_t i = 0; i < to.rows; i++) std::copy_n(from.data + i * from.ld, to.cols, to.data + i * to.ld);
}

void RefBackend::round(const Tensor& to, const GradTensor& from) {
  for (int64_t i = 0; i < to.rows; i++)
    for (int64_t j = 0; j < to.cols; j++) at(to, i, j) = float(at(from, i, j));
}

}  // namespace ref
}  // namespace rolegrad
