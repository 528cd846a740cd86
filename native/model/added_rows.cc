#include "model/added_rows.h"

#include <cstring>

#include "core/error.h"

namespace rolegrad {

namespace {

template <class T, class Widen, class Narrow>
void fill_rows(T* rows, int64_t columns, std::span<const int32_t> fresh, int64_t known, Widen widen, Narrow narrow) {
  std::vector<double> mean(static_cast<size_t>(columns));
  for (int64_t v = 0; v < known; v++)
    for (int64_t c = 0; c < columns; c++) mean[size_t(c)] += double(widen(rows[v * columns + c]));
  for (double& x : mean) x /= double(known);
  for (int32_t v : fresh)
    for (int64_t c = 0; c < columns; c++) rows[v * columns + c] = narrow(float(mean[size_t(c)]));
}

}  // namespace

void add_rows(std::map<std::string, StoredTensor>& tensors, std::vector<std::unique_ptr<unsigned char[]>>& copies,
              const ModelConfig& config, std::span<const int32_t> fresh, int64_t known) {
  for (const char* name : {"model.embed_tokens.weight", "lm_head.weight"}) {
    auto it = tensors.find(name);
    if (it == tensors.end() || (config.tied && it->first == "lm_head.weight"))
      continue;  // what is missing is said by name later
    StoredTensor& t = it->second;
    if (t.shape.size() != 2 || t.shape[1] != config.hidden_size || t.shape[0] > config.vocab_size || known < 1 ||
        known > t.shape[0])
      throw Error("ERR_MODEL_TENSOR", std::string("Expected ") + name +
                                          " to have the rows and columns of config.json before tokens are added");
    for (int32_t v : fresh)
      if (v < 0 || v >= config.vocab_size)
        throw Error("ERR_TOKEN_RANGE", "Expected added tokens within the vocabulary");
    const size_t width = t.dtype == DType::bf16 ? 2 : 4, row = size_t(config.hidden_size) * width;
    copies.push_back(std::make_unique<unsigned char[]>(size_t(config.vocab_size) * row));
    unsigned char* to = copies.back().get();
    std::memcpy(to, t.data, size_t(t.shape[0]) * row);
    if (t.dtype == DType::bf16)
      fill_rows(reinterpret_cast<bf16*>(to), config.hidden_size, fresh, known, bf16_to_float, float_to_bf16);
    else
      fill_rows(
          reinterpret_cast<float*>(to), config.hidden_size, fresh, known, [](float x) { return x; },
          [](float x) { return x; });
    t.data = to;
    t.file = nullptr;  // in memory of its own
    t.shape[0] = config.vocab_size;
  }
}

}  // namespace rolegrad
