#pragma once
// The sequences that the tests of attention share.

#include <memory>
#include <string>
#include <vector>

#include "op_cases.h"

namespace rolegrad::testing {

/// A sequence whose positions 0 .. start - 1 are in the pages already, and start .. start + count - 1 are the batch's
/// rows.
struct Piece {
  int64_t start = 0, count = 0;
};

struct AttentionCase {
  std::string name;
  int heads = 0, kv_heads = 0, head_dim = 0;
  std::vector<Piece> pieces;
  /// Rows of one role, then of another; 0: every row has a role of its own.
  int64_t span = 0;
};

/// Whole sequences (start 0), and pieces of sequences as decode and chunked prefill have them.
const std::vector<AttentionCase>& whole_sequences();
const std::vector<AttentionCase>& pieces_of_sequences();
/// Whole sequences in long spans of roles: blocks of one role, of another, and of several.
const std::vector<AttentionCase>& spans_of_roles();

/// The numbers of a case on the host. Row `first_row(s) + i` of k and v is position i of sequence s; q, dout and roles
/// are the batch's rows.
struct AttentionData {
  explicit AttentionData(AttentionCase case_, uint64_t seed = 21);
  AttentionShape shape() const;
  int64_t first_row(size_t s) const;

  AttentionCase test;
  Mat q, k, v, dout;
  std::vector<int8_t> roles;
};

/// Pages that are full of NaN until something is written, handed to sequences in no particular order.
class PlacedPages {
 public:
  PlacedPages(Place& place, const AttentionShape& shape, const std::vector<int64_t>& lengths, int layers = 1);

  /// Writes rows [row, row + count) of k and v as positions start .. of sequence s.
  void write(size_t s, int64_t start, int64_t count, const Mat& k, const Mat& v, int64_t row, int layer = 0);
  SequenceSpan span(size_t s, int64_t row, int64_t start, int64_t count) const {
    return {row, count, start, lists_[s]};
  }
  KvPages& kv() { return *kv_; }

 private:
  Place& place_;
  AttentionShape shape_;
  std::unique_ptr<KvPages> kv_;
  std::vector<std::vector<int32_t>> lists_;
};

/// Everything written, and the spans of the batch's rows.
struct PlacedSequences {
  PlacedSequences(Place& place, const AttentionData& data);
  PlacedPages pages;
  std::vector<SequenceSpan> spans;
};

struct AttentionResult {
  Mat out, lse;
};
AttentionResult run_attention(Backend& backend, const AttentionData& data);

struct AttentionGradients {
  Mat dq, dk, dv;
};
/// Forward and backward of whole sequences; plain ("flow") without roles.
AttentionGradients run_attention_backward(Backend& backend, const AttentionData& data, bool stop);

}  // namespace rolegrad::testing
