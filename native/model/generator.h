#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "model/decoder.h"
#include "model/prompt_tree.h"
#include "model/role_router.h"

namespace rolegrad {

/// What decoding works in: the pages of the cache, and the tensors of a step.
struct DecodeMemory {
  std::unique_ptr<KvPages> kv;
  std::unique_ptr<Arena> arena;
  int64_t touched = 0;  // pages that have been written to
};

/// A model's memory for decoding between two generators, so that the next rollout finds it where the last one left it.
class IdleDecodeMemory {
 public:
  /// A cache of which more has been used is freed: training, which comes next, may need the memory.
  static constexpr size_t kMost = size_t(1) << 30;

  /// With at least `pages` pages.
  DecodeMemory take(const Model& model, int64_t pages);
  /// Keeps the larger of what is here and `memory`, up to kMost.
  void give(DecodeMemory memory);
  /// Frees what is here.
  void clear() {
    std::lock_guard lock(mutex_);
    idle_ = {};
  }

 private:
  std::mutex mutex_;
  DecodeMemory idle_;
};

/// Decodes many sequences together: each step runs one row for every sequence that has a token to sample and a chunk of
/// rows for those whose prompt or tool output is not yet in the cache. What a sequence gets does not depend on the
/// others, nor on the memory there is.
///
/// Sequences take pages as they grow. Prompts that begin alike share pages (PromptTree), and the first to come computes
/// them for all. When pages run out, they are taken in this order: from a sequence that waits for a tool, the youngest
/// first; from the youngest sequence that runs, if it is younger than the one in need; from prompts kept for samples
/// that have not begun. Who loses its pages is computed again later, from its tokens and their roles. A sequence
/// begins, or begins again, only when there are pages for all of its tokens and one more for each older one that may
/// grow; the oldest takes what it needs from anyone, so it always goes on.
///
/// Several writers (a hybrid, or an agent a role): the role of a position says whose prediction follows it. Each has a
/// cache of its own, with keys and values of the whole history, which it computes when its turn comes; or all share
/// one, in which each position's are those of the writer whose role it has.
///
/// run() decodes on its caller's thread; meanwhile other threads may call everything else. What they do counts from the
/// next step on, so a tool's answer need not stop the decoding of others.
class Generator {
 public:
  struct Options {
    int64_t max_sequences = 64;  // decoded together, those that wait for a tool included; further ones queue
    int64_t max_length = 0;      // tokens of one sequence, prompt included
    int64_t cache_tokens = 0;    // positions in the cache, of all sequences; 0: (max_sequences + 1) * max_length
    int64_t chunk = 2048;        // rows of prompt or tool output in one step
    std::vector<std::vector<uint8_t>> token_bytes;
    RouterConfig router;
    std::vector<int32_t> adapter_of_role;  // of the only writer: see Writer
    std::vector<int32_t> writer_of_role;   // role -> writer; empty: there is one
    bool shared_cache = false;             // of several writers, whose models have one shape
    bool shuffle_routes = false;           // the placebo: see Result::routing
    bool tell_tokens = false;              // an event for every token that is sampled
  };

  /// A model, with the adapters that run its rows.
  struct Writer {
    const Model* model;
    AdapterList adapters;
    std::vector<int32_t> adapter_of_role;  // role -> adapter index or -1
    IdleDecodeMemory* idle = nullptr;      // must outlive the generator
  };

  /// ERR_CACHE_TOO_SMALL when one sequence of max_length does not fit. `idle` must outlive the generator.
  Generator(const Model& model, AdapterList adapters, Options options, IdleDecodeMemory* idle = nullptr);
  /// ERR_WRITERS where their vocabularies, or with a shared cache their shapes, differ.
  Generator(std::vector<Writer> writers, Options options);
  ~Generator();
  Generator(const Generator&) = delete;

  struct Request {
    std::vector<int32_t> ids;
    SamplingOptions sampling;
    RngKey key;
    int64_t max_new_tokens = 0;  // sampled tokens
    std::vector<int32_t> stop_ids;
  };
  /// Returns the sequence's number. Numbers increase; a lower one is older.
  int64_t add(Request request);
  /// Unsampled tokens after what is there (tool output); the sequence goes on. ERR_BUSY while a step has it.
  void append(int64_t id, std::span<const int32_t> ids);

  enum class EventKind { token, call, stop, length };
  struct Event {
    int64_t id = 0;
    EventKind kind = EventKind::stop;
    int span = -1;       // call: which
    std::string text{};  // call: between the tags
    int32_t token = -1;  // token, and so the next two
    int8_t role = 0;     // under which it was sampled: that of the position before
    float logprob = 0;
  };
  /// Decodes until there is something to tell, `steps` steps are done, `interrupt` is set, or nothing can run. With
  /// `tell`, which gets the events of each step that has some, it goes on, and returns none. One call at a time.
  std::vector<Event> run(int64_t steps, const std::atomic<bool>& interrupt,
                         const std::function<void(std::vector<Event>)>& tell = {});

  struct Result {
    std::vector<int32_t> ids;
    std::vector<int8_t> roles;
    std::vector<uint8_t> sampled;
    std::vector<float> logprobs;
    /// With shuffle_routes, else empty: the role whose route each position takes. Behind the prompt, each pair of
    /// neighbouring runs of one role has its labels permuted, at random by the sequence's key: spans keep their
    /// lengths, and two roles that alternate their number of spans.
    std::vector<int8_t> routing;
  };
  /// The sequence so far; it is forgotten and its pages are free. ERR_BUSY while a step has it.
  Result take(int64_t id);
  /// Sequences that have a row to run now: neither queued, nor waiting, nor ended.
  int64_t runnable() const;
  int64_t sequences() const {
    std::lock_guard lock(mutex_);
    return int64_t(sequences_.size());
  }

  /// What has happened so far.
  struct Stats {
    int64_t steps = 0;
    int64_t sampled = 0;      // tokens
    int64_t computed = 0;     // rows that went through the decoder
    int64_t shared = 0;       // prompt tokens that were not computed because another sequence's pages hold them
    int64_t preemptions = 0;  // sequences that lost their pages
    int64_t recomputed = 0;   // computed rows that had been computed before
    int64_t peak_pages = 0;   // held at once
  };
  Stats stats() const;
  /// Pages that sequences hold, or that are kept for them.
  int64_t held_pages() const {
    std::lock_guard lock(mutex_);
    int64_t held = 0;
    for (const auto& cache : caches_) held += cache->pool.pages() - cache->pool.free();
    return held;
  }
  /// Positions that each cache has room for.
  int64_t cache_tokens() const { return caches_.front()->pool.pages() * KvPages::kPage; }

 private:
  enum class State { queued, running, waiting, ended };
  /// What a sequence has of a cache.
  struct Held {
    std::vector<int32_t> pages;            // none: not started there, or preempted
    std::vector<PromptTree::Node*> nodes;  // those of its first pages that are in the tree
    bool indexed = true;                   // its prompt goes into the tree as it is computed
    int64_t cached = 0;
    int64_t computed = 0;  // the most that was ever cached
  };
  struct Sequence {
    int64_t id;
    Result record;
    Request request;
    RoleRouter router;
    std::vector<Held> held;  // by cache
    int64_t prompt = 0;      // tokens
    State state = State::queued;
    int64_t sampled = 0;
    int64_t runs = 0;  // of one role, behind the prompt

    int64_t length() const { return int64_t(record.ids.size()); }
  };
  using Sequences = std::vector<std::unique_ptr<Sequence>>;

  struct Cache {
    Cache(DecodeMemory own, IdleDecodeMemory* from, int64_t pages)
        : memory(std::move(own)), idle(from), pool(pages), tree(pool) {}
    DecodeMemory memory;
    IdleDecodeMemory* idle;
    PagePool pool;
    PromptTree tree;
    bool left = false;  // some sequence has left pages of a prompt, or no longer wants them

    // While a step is put together:
    int64_t room = 0;     // rows of prompts and tool output that it may still take in
    int64_t growing = 0;  // older sequences that hold pages and may need more
    bool oldest = true, full = false;
  };
  /// What a writer does in the step that is being put together; kept, so that a step allocates next to nothing.
  struct Work {
    size_t cache = 0;
    Arena* arena = nullptr;
    std::unique_ptr<Arena> own_arena;  // beside a cache that another's memory came with
    std::vector<int32_t> ids, adapter_rows, cuts, last_rows, token;
    std::vector<float> logprob;
    std::vector<SamplingOptions> sampling;
    std::vector<double> draws;
    std::vector<Sequence*> ready;  // sequences whose last token is in this step
    Batch batch;
  };

  // generator.cc: what a sequence is told and tells.
  void check_tokens(std::span<const int32_t> ids) const;
  Sequence& find(int64_t id);
  Sequences::iterator position(int64_t id);
  void admit();
  void check_idle(const Sequence& s) const;
  void forget_taken();
  void record(Sequence& s, int32_t token, int8_t role, bool was_sampled, float logprob);
  void end(Sequence& s, EventKind kind, std::vector<Event>& events);
  void sampled(Sequence& s, int32_t token, float logprob, std::vector<Event>& events);

  // generator_step.cc: a step's rows, and whose pages they go to.
  size_t writer_at(const Sequence& s, int64_t position) const;
  size_t turn(const Sequence& s) const { return work_[writer_at(s, s.length() - 1)].cache; }
  bool step(std::vector<Event>& events);
  bool begin_step(std::vector<Event>& events);
  void compute(const Writer& writer, Work& work);
  void end_step(std::vector<Event>& events);
  bool schedule(std::vector<Event>& events);
  void schedule(Sequence& s, size_t cache);
  bool start(Sequence& s, size_t cache, const PromptTree::Match& match, bool oldest);
  bool take_page(Sequence& s, size_t cache, bool starting);
  bool reclaim(const Sequence& s, size_t cache, bool starting);
  int64_t available(const Sequence& s, size_t cache) const;
  void index_prompt(Sequence& s, size_t cache, int64_t begin, int64_t end);
  void release(Sequence& s);
  void release(Sequence& s, size_t cache);
  void preempt(Sequence& s, size_t cache);
  void prune();
  void prune(size_t cache);
  void forget_caches();

  Options options_;
  std::vector<Writer> writers_;
  std::vector<std::unique_ptr<Cache>> caches_;
  mutable std::mutex mutex_;  // over all below, but for what a step works in while it computes
  Sequences sequences_;       // by age: the order of a step
  Sequences taken_;           // while a step computes: their pages are free after it
  bool computing_ = false;
  int64_t next_ = 0, admitted_ = 0;
  Stats stats_;

  std::vector<Work> work_;  // by writer
  std::vector<PromptTree::Node*> fresh_;
};

}  // namespace rolegrad
