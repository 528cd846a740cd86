// A step allocates nothing after the first: no block of backend memory, and no other block that grows with the model or
// the batch. The head makes no T x V logits, and works on the rows that the loss speaks of alone.
#include "allocation.h"
#include "core/executor.h"
#include "model_cases.h"
#include "ops/host_memory.h"

using namespace rolegrad;
using namespace rolegrad::testing;

namespace {

struct Use {
  int64_t blocks = host_memory_use().allocations, bytes = host_memory_use().bytes, large = large_allocations();
  bool operator==(const Use&) const = default;
};

void check_same(const std::string& what, const Use& before) {
  const Use now;
  if (now == before) return;
  fail(__FILE__, __LINE__,
       what + ": " + std::to_string(now.blocks - before.blocks) + " blocks of backend memory (" +
           std::to_string(now.bytes - before.bytes) + " bytes) and " + std::to_string(now.large - before.large) +
           " other large blocks");
}

ModelShape shape_of(DType dtype, bool tied) {
  return {.config = {.vocab_size = 2037,
                     .hidden_size = 48,
                     .layers = 4,
                     .heads = 4,
                     .kv_heads = 2,
                     .head_dim = 12,
                     .intermediate_size = 500,
                     .tied = tied},
          .dtype = dtype,
          .ranks = {4, 9}};
}

/// A step of one way of training on a large batch, then one on a small one and one on the large one again.
struct StepCase {
  std::string name;
  Way way;
  ObjectiveKind kind = ObjectiveKind::policy;
  int batches = 1;                                // of a step
  bool checkpointing = false, reference = false;  // a model of its own
};

void check_steps(Backend& backend, const StepCase& c) {
  ModelShape shape = shape_of(DType::bf16, true);
  shape.config.layers = 2;
  shape.config.intermediate_size = 200;
  c.way.change(shape);
  // Many tokens: what is made for each of them is large.
  if (!shape.tokens.empty())
    for (shape.tokens.clear(); shape.tokens.size() < 100;) shape.tokens.push_back(int32_t(20 * shape.tokens.size()));
  const ModelData data(shape);
  auto model = data.model(another(backend));
  const auto reference = c.reference ? data.model(another(backend)) : nullptr;
  Trainer trainer(*model, data.adapters(*model), reference.get(),
                  {.track = c.way.track, .checkpointing = c.checkpointing});
  const SequenceData large(shape, {80, 7, 50}), small(shape, {33, 41});
  LossOptions options;
  options.kind = c.kind;
  options.beta = 0.1;
  options.cross_role = c.way.cross_role;
  auto step = [&](const SequenceData& batch) {
    LossBatch in = batch.batch();
    in.reference_logprob = {};
    for (int i = 0; i < c.batches; i++) trainer.accumulate(in, options);
    trainer.apply({.learning_rate = 0.01, .max_norm = 0.5}, false);
    trainer.zero_gradients();
  };
  step(large);
  for (const auto* batch : {&small, &large}) {
    const Use before;
    step(*batch);
    check_same(c.name, before);
  }
}

CONTRACT_TEST("a training step of adapters allocates nothing after the first of its size, smaller ones neither") {
  for (const Way& way : ways()) check_steps(backend, {.name = way.name, .way = way});
  const Way flow = ways()[0];
  check_steps(backend, {.name = "two batches", .way = flow, .batches = 2});
  check_steps(backend, {.name = "checkpointing", .way = flow, .checkpointing = true});
  check_steps(backend, {.name = "sft", .way = flow, .kind = ObjectiveKind::sft});
  check_steps(backend, {.name = "a reference of its own", .way = flow, .reference = true});
}

BACKEND_TEST("a step of full training allocates nothing after the first of its size") {
  for (auto [tied, checkpointing] : {std::pair{false, false}, {true, false}, {true, true}}) {
    const ModelData data(shape_of(DType::bf16, tied));
    auto model = data.model(another(backend), true);
    std::shared_ptr<Memory> masters;
    Trainer trainer(*model, std::make_unique<FullParameters>(*model, data.tensors(), masters), nullptr,
                    {.track = false, .checkpointing = checkpointing});
    SequenceData batch(data.shape(), {90, 7, 100});
    batch.roles.assign(batch.roles.size(), -1);
    auto step = [&] {
      trainer.accumulate(batch.batch(), {});
      trainer.apply({.learning_rate = 0.01}, false);
      trainer.zero_gradients();
    };
    step();
    for (int i = 0; i < 2; i++) {
      const Use before;
      step();
      check_same(checkpointing ? "tied, checkpointing" : tied ? "tied" : "own head", before);
    }
  }
}

BACKEND_TEST("scoring allocates no backend memory after the first call of its size") {
  const ModelData data(shape_of(DType::f32, false));
  auto model = data.model(another(backend));
  auto store = data.adapters(*model);
  Arena arena(model->backend());
  const SequenceData large(data.shape(), {120, 7, 70}), small(data.shape(), {50});
  auto run = [&](const SequenceData& s) { score(*model, arena, s.ids, s.cu, s.adapter(), store->list(), 1, false); };
  run(large);
  const Use before;
  run(small), run(large);
  check_same("score", before);
}

BACKEND_TEST("scoring holds the keys and values of one layer, not of all") {
  const ModelData data(shape_of(DType::f32, false));
  auto model = data.model(another(backend));
  Arena arena(model->backend());
  const SequenceData s(data.shape(), {120, 7, 70});
  score(*model, arena, s.ids, s.cu, std::vector<int32_t>(s.ids.size(), -1), {}, 1, false);
  const int64_t pages = 2 + 1 + 2;  // and a quarter
  CHECK_EQUAL(arena.kv_bytes(), backend.kv_pages(1, model->attention_shape(), pages + pages / 4)->bytes());
}

/// Who asks the head for log-probabilities, and which gradients it gives.
enum class HeadUse { score, adapters, tokens, whole };
constexpr std::pair<HeadUse, const char*> kHeadUses[] = {{HeadUse::score, "score"},
                                                         {HeadUse::adapters, "adapters"},
                                                         {HeadUse::tokens, "trained tokens"},
                                                         {HeadUse::whole, "full training"}};

struct HeadMemory {
  int64_t arena = 0;  // at most at once
  int64_t heap = 0;   // all that was asked for beside the arena
};

/// Of the first loss of a model of one layer that teaches `rows` of the 256 tokens of a batch.
HeadMemory head_memory(Backend& backend, HeadUse use, int64_t vocabulary, size_t rows) {
  ModelShape shape;
  ModelConfig& c = shape.config;
  c.vocab_size = vocabulary, c.hidden_size = 16, c.layers = 1, c.heads = c.kv_heads = 1, c.head_dim = 16;
  c.intermediate_size = 16;
  shape.ranks = {1};
  if (use == HeadUse::tokens) shape.tokens = {5, 1000};
  const ModelData data(shape);
  const bool whole = use == HeadUse::whole;
  auto model = data.model(another(backend), whole);
  SequenceData s(shape, {256});
  std::vector<uint8_t> wanted(256);
  for (size_t t = 0; t < 256; t++) wanted[t] = t > 0 && t <= rows, s.weight[t] = wanted[t] ? 1 / double(rows) : 0;
  if (whole) s.roles.assign(s.roles.size(), -1);
  std::shared_ptr<Memory> masters;
  std::unique_ptr<Trainer> trainer;
  if (whole)
    trainer =
        std::make_unique<Trainer>(*model, std::make_unique<FullParameters>(*model, data.tensors(), masters), nullptr);
  else
    trainer = std::make_unique<Trainer>(*model, data.adapters(*model));
  Arena own(model->backend());
  const Arena& arena = use == HeadUse::score ? own : trainer->arena();
  const int64_t heap = large_bytes(), held = host_memory_use().bytes, blocks = host_memory_use().allocations;
  if (use == HeadUse::score)
    score(*model, own, s.ids, s.cu, s.adapter(), trainer->store()->list(), 1, false, wanted);
  else
    trainer->accumulate(s.batch(), {});
  // Backend memory is the arena's and the pages', and nothing was given back meanwhile.
  CHECK_EQUAL(host_memory_use().allocations - blocks, arena.allocations() + 1);
  CHECK_EQUAL(host_memory_use().bytes - held, int64_t(arena.bytes() + arena.kv_bytes()));
  return {int64_t(arena.peak_bytes()), large_bytes() - heap};
}

constexpr int64_t kFloat = sizeof(float), kChunk = 1024;  // of the vocabulary

BACKEND_TEST("the head allocates no T x V logits: a vocabulary eight times as large costs its chunks' sums alone") {
  constexpr int64_t kRows = 255, kSmall = 4 * kChunk, kLarge = 8 * kSmall;
  const int64_t threads = Executor::shared().threads();
  // (max, sum) of each chunk of a row: of all rows, or of the 128 that a thread works on. Those of the small vocabulary
  // may be too few to be counted.
  const int64_t sums = (kLarge / kChunk * 2 + 1) * kFloat * std::max(kRows, threads * 128) + 256;
  for (auto [use, name] : kHeadUses) {
    const HeadMemory small = head_memory(backend, use, kSmall, kRows), large = head_memory(backend, use, kLarge, kRows);
    CHECK_EQUAL(large.arena, small.arena);
    if (large.heap - small.heap > sums)
      fail(__FILE__, __LINE__, std::string(name) + ": " + std::to_string(large.heap - small.heap) + " bytes more");
    // Every thread has a chunk of its own for 128 rows.
    CHECK(large.arena + large.heap - 2 * threads * 128 * kChunk * kFloat < kRows * kLarge * kFloat / 4);
  }
}

BACKEND_TEST("the head allocates for the rows that the loss speaks of, not for every token") {
  constexpr int64_t kVocabulary = 32 * kChunk, kMore = 100;
  for (auto [use, name] : kHeadUses) {
    const HeadMemory few = head_memory(backend, use, kVocabulary, 100),
                     more = head_memory(backend, use, kVocabulary, 100 + kMore);
    // H = 16 numbers, or one in 16 columns: raw, normed, logprob, lse, dnormed, draw; the mean and the entropy; with
    // trained tokens their logits and dlogits. (The peak of scoring is that of its layer.)
    const int64_t columns = use == HeadUse::score ? 0 : use == HeadUse::adapters ? 8 : use == HeadUse::tokens ? 8 : 6;
    // (max, sum) of each chunk, and the target's logit; a chunk of the logits where gradients take a second pass.
    const int64_t numbers = use == HeadUse::adapters ? 0 : 2 * kVocabulary / kChunk + 1,
                  second = use == HeadUse::tokens || use == HeadUse::whole ? kChunk : 0;
    if (more.arena - few.arena != kMore * columns * 16 * kFloat ||
        more.heap - few.heap != kMore * (numbers + second) * kFloat)
      fail(__FILE__, __LINE__,
           std::string(name) + ": " + std::to_string(more.arena - few.arena) + " and " +
               std::to_string(more.heap - few.heap) + " bytes for " + std::to_string(kMore) + " rows");
  }
}

TEST("packed blocks are aligned, zeroed and each their own, also where others beside them are gone") {
  std::vector<std::pair<std::unique_ptr<HostMemory>, unsigned char>> blocks;
  for (int i = 0; i < 200; i++) {
    const size_t bytes = 1 + size_t(uniform({1, 2}, uint64_t(i)) * 700'000);
    auto block = std::make_unique<HostMemory>(bytes, Placement::packed);
    auto* data = static_cast<unsigned char*>(block->data());
    CHECK(reinterpret_cast<uintptr_t>(data) % 64 == 0);
    CHECK(std::all_of(data, data + bytes, [](unsigned char x) { return x == 0; }));
    std::fill(data, data + bytes, static_cast<unsigned char>(i + 1));
    blocks.emplace_back(std::move(block), static_cast<unsigned char>(i + 1));
    if (i % 3 == 2) blocks.erase(blocks.begin() + i / 3);
  }
  for (const auto& [block, mark] : blocks) {
    const auto* data = static_cast<const unsigned char*>(block->data());
    const auto own = [mark = mark](unsigned char x) { return x == mark; };
    CHECK(std::all_of(data, data + block->bytes(), own));
  }
}

}  // namespace
