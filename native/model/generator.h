#pragma once

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/decoder.h"
#include "model/role_router.h"

namespace rolegrad {

/// Decodes many sequences together: each step runs one row for every sequence that has a token to sample and a chunk of
/// rows for every one whose prompt or tool output is not yet in its cache. What a sequence gets does not depend on the
/// others.
class Generator {
 public:
  struct Options {
    int64_t max_sequences = 64;  // decoded together; further ones wait
    int64_t max_length = 0;  // tokens of one sequence, prompt included; pages for this many are reserved when it starts
    int64_t chunk = 2048;    // rows of prompt or tool output in one step
    std::vector<std::vector<uint8_t>> token_bytes;
    RouterConfig router;
    std::vector<int32_t> adapter_of_role;  // role -> adapter index or -1
  };

  Generator(const Model& model, AdapterList adapters, Options options);

  struct Request {
    std::vector<int32_t> ids;
    SamplingOptions sampling;
    RngKey key;
    int64_t max_new_tokens = 0;  // sampled tokens
    std::vector<int32_t> stop_ids;
  };
  /// Returns the sequence's number.
  int64_t add(Request request);
  /// Unsampled tokens after what is there (tool output); the sequence goes on.
  void append(int64_t id, std::span<const int32_t> ids);

  enum class EventKind { call, stop, length };
  struct Event {
    int64_t id;
    EventKind kind;
    int span = -1;     // call: which
    std::string text;  // call: between the tags
  };
  /// Decodes until there is something to tell, `steps` steps are done, `interrupt` is set, or nothing can run.
  std::vector<Event> run(int64_t steps, const std::atomic<bool>& interrupt);

  struct Result {
    std::vector<int32_t> ids;
    std::vector<int8_t> roles;
    std::vector<uint8_t> sampled;
    std::vector<float> logprobs;
  };
  /// The sequence so far; it is forgotten and its pages are free.
  Result take(int64_t id);
  int64_t runnable() const;
  int64_t sequences() const { return int64_t(sequences_.size()); }

 private:
  struct Sequence {
    Result record;
    Request request;
    RoleRouter router;
    std::vector<int32_t> pages;  // empty: not started
    int64_t cached = 0, sampled = 0;
    bool waiting = false;  // for a tool, or finished
  };
  bool start(Sequence& sequence);
  void step(std::vector<Event>& events);

  const Model& model_;
  AdapterList adapters_;
  Options options_;
  Arena arena_;
  std::unique_ptr<KvPages> kv_;
  std::vector<int32_t> free_pages_;
  std::map<int64_t, Sequence> sequences_;  // by number: the order of a step
  int64_t next_ = 0;
};

}  // namespace rolegrad
