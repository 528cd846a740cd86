#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/model.h"

namespace rolegrad {

/// Rows for tokens that a checkpoint has not learned: the embedding (and the head, unless tied) grows to
/// config.vocab_size rows, and the rows `fresh` are the mean of the first `known`, taken in f64 and stored as the
/// tensor is. The new tensors lie in `copies`; `tensors` then speaks of them.
void add_rows(std::map<std::string, StoredTensor>& tensors, std::vector<std::unique_ptr<unsigned char[]>>& copies,
              const ModelConfig& config, std::span<const int32_t> fresh, int64_t known);

}  // namespace rolegrad
