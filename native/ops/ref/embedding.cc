#include "ops/ref/ref_backend.h"

namespace rolegrad::ref {

void RefBackend::embed(const Tensor& y, const PackedWeight& table, std::span<const int32_t> ids) {
  const auto& rows = static_cast<const Weight&>(table);
  for (int64_t t = 0; t < y.rows; t++)
    for (int64_t j = 0; j < y.cols; j++) at(y, t, j) = rows.at(ids[size_t(t)], j);
}

void RefBackend::embed_gradient(const GradTensor& dtable, const Tensor& dx, std::span<const int32_t> ids,
                                const Rows::Group& group) {
  for (int32_t t : group.rows)
    for (int64_t j = 0; j < dx.cols; j++) at(dtable, ids[size_t(t)], j) += at(dx, t, j);
}

}  // namespace rolegrad::ref
