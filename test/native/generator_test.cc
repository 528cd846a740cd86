// Decoding many sequences in little memory: whatever is shared, given up and computed again, a sequence gets what it
// gets alone.
#include "model/generator.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "core/executor.h"
#include "random_decoding.h"
#include "random_shapes.h"
#include "toy_decoder.h"
#include "train/trainer.h"

using namespace rolegrad;
using namespace rolegrad::testing;

namespace {

ToyDecoder& toy() {
  static ToyDecoder decoder(make_cpu_backend());
  return decoder;
}

ToyDecoder& reference_toy() {
  static ToyDecoder decoder(make_reference_backend());
  return decoder;
}

Outcome decode(const std::vector<Task>& tasks, const Generator::Options& options, uint64_t seed,
               IdleDecodeMemory* idle = nullptr, const ToyDecoder& on = toy()) {
  Generator generator(*on.model, on.adapters, options, idle);
  return decode(generator, tasks, seed);
}

TEST("a sequence gets the same ids, roles and log-probabilities in any memory, batch and order of events") {
  Generator::Stats total;
  int64_t threads = Executor::shared().threads();
  const int64_t trials = std::max(4, shape_runs(60));
  for (uint64_t trial = 0; trial < uint64_t(trials); trial++) {
    Numbers numbers(trial);
    Generator::Options options = toy().options();
    options.max_length = 100 + numbers.below(200);
    const auto tasks = random_tasks(numbers, options.max_length);

    // Alone, one after another, in chunks that hold every prompt whole.
    std::vector<Generator::Result> want;
    for (const Task& task : tasks) {
      Generator::Options alone = options;
      alone.max_sequences = 1;
      want.push_back(std::move(decode({task}, alone, 1).results[0]));
    }
    for (int way = 0; way < 3; way++) {
      options.max_sequences = 1 + numbers.below(12);
      options.cache_tokens = options.max_length + (way == 0 ? 0 : numbers.below(int(options.max_length) * 4));
      options.chunk = way == 1 ? 1 + numbers.below(40) : 1 + numbers.below(2000);
      if (way == 2) Executor::shared().limit_threads(1);
      const Outcome got = decode(tasks, options, trial * 3 + uint64_t(way));
      Executor::shared().limit_threads(int(threads));
      size_t equal = 0;
      for (size_t i = 0; i < tasks.size(); i++) equal += same(got.results[i], want[i]);
      CHECK_EQUAL(equal, tasks.size());
      CHECK_EQUAL(got.held, 0);
      CHECK_EQUAL(got.idle_runs, 0);
      CHECK(got.stats.peak_pages * 64 <= options.cache_tokens + 63);
      total.preemptions += got.stats.preemptions;
      total.recomputed += got.stats.recomputed;
      total.shared += got.stats.shared;
    }
  }
  CHECK(total.preemptions > 2 * trials);
  CHECK(total.recomputed > 20 * trials);
  CHECK(total.shared > 20 * trials);
}

TEST("so it does on the reference backend") {
  Generator::Options options = reference_toy().options();
  options.max_length = 230;
  std::vector<Task> tasks;
  for (uint64_t i = 0; i < 5; i++) tasks.push_back({i % 2 ? Ids(70, 5) : Ids(66, 6), 140, i});
  const Outcome want = decode(tasks, options, 1, nullptr, reference_toy());
  options.cache_tokens = 320;
  options.chunk = 50;
  const Outcome got = decode(tasks, options, 2, nullptr, reference_toy());
  CHECK_EQUAL(want.stats.preemptions, 0);
  CHECK(got.stats.preemptions > 0);
  CHECK(got.stats.shared > 0);
  for (size_t i = 0; i < tasks.size(); i++) CHECK(same(got.results[i], want.results[i]));
}

TEST("recorded log-probabilities are those of one pass over the whole sequence, after preemption too") {
  Numbers numbers(5);
  Generator::Options options = toy().options();
  options.max_length = 260;
  options.cache_tokens = 400;
  options.max_sequences = 8;
  std::vector<Task> tasks;
  for (int i = 0; i < 8; i++) tasks.push_back({numbers.below(2) ? Ids(90, 5) : Ids(70, 6), 150, uint64_t(i)});
  const Outcome got = decode(tasks, options, 9);
  CHECK(got.stats.preemptions > 0);
  Arena arena(toy().model->backend());
  for (const auto& result : got.results) {
    std::vector<int32_t> cuts{0, int32_t(result.ids.size())}, adapter(result.roles.begin(), result.roles.end());
    const auto whole = score(*toy().model, arena, result.ids, cuts, adapter, toy().adapters, 1, false);
    size_t equal = 0, sampled = 0;
    for (size_t t = 0; t < result.ids.size(); t++)
      if (result.sampled[t]) sampled++, equal += whole.logprobs[t] == result.logprobs[t];
    CHECK(sampled > 0);
    CHECK_EQUAL(equal, sampled);
  }
}

// ---- a group's prompt

Task plain(Ids prompt, uint64_t seed, int64_t tokens = 6) { return {std::move(prompt), tokens, seed}; }

/// The same without calls and ends, so that what is computed can be counted.
Generator::Options without_calls(int64_t max_length) {
  Generator::Options options = toy().options();
  options.router.spans.clear();
  options.max_length = max_length;
  return options;
}

Ids some_prompt(int64_t length, uint64_t seed) {
  Numbers numbers(seed);
  Ids ids;
  while (int64_t(ids.size()) < length) ids.push_back(3 + numbers.below(ToyDecoder::kVocabulary - 3));
  return ids;
}

int64_t rows_of_samples(const Outcome& out) {  // a sample's last token is not computed
  int64_t n = 0;
  for (const auto& r : out.results) n += std::count(r.sampled.begin(), r.sampled.end(), 1) - 1;
  return n;
}

TEST("a group's prompt is computed once, its last position once more for each further sample") {
  for (int64_t length : {1, 2, 63, 64, 65, 128, 150, 300})
    for (int64_t together : {1, 3, 6})
      for (int64_t chunk : {2048, 50}) {
        Generator::Options options = without_calls(400);
        options.max_sequences = together;
        options.chunk = chunk;
        std::vector<Task> tasks;
        for (uint64_t i = 0; i < 6; i++) tasks.push_back(plain(some_prompt(length, 1), i));
        // All are there from the start, as a rollout has it: decode() lets them join over time.
        Generator generator(*toy().model, toy().adapters, options);
        for (const Task& task : tasks) generator.add({task.prompt, {}, {task.seed, 3}, 6, {}});
        Outcome out;
        while (generator.sequences() > 0)
          for (const auto& event : generator.run(100, std::atomic<bool>(false)))
            out.results.push_back(generator.take(event.id));
        out.stats = generator.stats();
        CHECK_EQUAL(out.stats.computed, length + 5 + rows_of_samples(out));
        CHECK_EQUAL(out.stats.shared, 5 * (length - 1));
        CHECK_EQUAL(out.stats.recomputed, 0);
        CHECK_EQUAL(out.stats.preemptions, 0);
        CHECK_EQUAL(generator.held_pages(), 0);
        // Whole pages are shared, the last one is everyone's own; the first sample's is where the others copy from.
        const int64_t whole = (length - 1) / 64, own = (length + 6 - 1 + 63) / 64 - whole;
        CHECK(out.stats.peak_pages <= whole + (together + 1) * own);
      }
}

TEST("prompts that begin alike share whole pages, and a part of the page where they part") {
  Generator::Options options = without_calls(400);
  Ids a = some_prompt(200, 1), b = a;
  b.resize(150);
  for (int32_t id : some_prompt(40, 2)) b.push_back(id);
  std::swap(b[150], b[151]);
  if (b[150] == a[150]) b[150] = 3 + (b[150] - 2) % (ToyDecoder::kVocabulary - 3);
  Generator generator(*toy().model, toy().adapters, options);
  generator.add({a, {}, {1, 3}, 6, {}});
  generator.add({b, {}, {2, 3}, 6, {}});
  Outcome out;
  while (generator.sequences() > 0)
    for (const auto& event : generator.run(100, std::atomic<bool>(false)))
      out.results.push_back(generator.take(event.id));
  CHECK_EQUAL(generator.stats().shared, 150);
  CHECK_EQUAL(generator.stats().computed, 200 + 40 + rows_of_samples(out));
  CHECK(same(out.results[0], decode({{a, 6, 1}}, options, 1).results[0]));
  CHECK(same(out.results[1], decode({{b, 6, 2}}, options, 1).results[0]));
}

TEST("a prompt is kept while a sample of its group is yet to start, and no longer") {
  Generator::Options options = without_calls(200);
  options.max_sequences = 1;
  Generator generator(*toy().model, toy().adapters, options);
  const Ids prompt = some_prompt(150, 3);
  const std::atomic<bool> go(false);
  for (uint64_t i = 0; i < 2; i++) generator.add({prompt, {}, {i, 3}, 4, {}});
  auto event = generator.run(100, go)[0];
  CHECK_EQUAL(generator.held_pages(), 3);
  generator.take(event.id);
  CHECK_EQUAL(generator.held_pages(), 3);
  event = generator.run(100, go)[0];
  generator.take(event.id);
  CHECK_EQUAL(generator.held_pages(), 0);
  CHECK_EQUAL(generator.stats().shared, 149);
  // The last sample may also never start.
  for (uint64_t i = 0; i < 2; i++) generator.add({prompt, {}, {i, 3}, 4, {}});
  generator.take(generator.run(100, go)[0].id);
  CHECK_EQUAL(generator.held_pages(), 3);
  generator.take(3);
  CHECK_EQUAL(generator.held_pages(), 0);
}

// ---- memory

TEST("a sequence takes pages as it grows") {
  Generator::Options options = without_calls(1000);
  options.max_sequences = 4;
  const Outcome out = decode({plain(some_prompt(10, 1), 1, 100)}, options, 1);
  CHECK_EQUAL(out.stats.peak_pages, 2);
}

TEST("a cache that cannot hold one sequence is refused") {
  Generator::Options options = without_calls(200);
  options.cache_tokens = 199;
  CHECK_THROWS("ERR_CACHE_TOO_SMALL", Generator(*toy().model, toy().adapters, options));
  options.cache_tokens = 200;
  const Outcome out = decode({plain(some_prompt(150, 1), 1, 100), plain(some_prompt(150, 2), 2, 100)}, options, 1);
  for (const auto& result : out.results) CHECK_EQUAL(result.ids.size(), size_t(200));
}

TEST("pages are taken from the sequence that waits for a tool, and from nobody who is older and runs") {
  Generator::Options options = toy().options();
  for (auto& bytes : options.token_bytes) bytes = {'<', '>'};  // every token is a call
  options.max_length = options.cache_tokens = 256;
  Generator generator(*toy().model, toy().adapters, options);
  const std::atomic<bool> go(false);
  for (uint64_t i = 0; i < 2; i++) generator.add({some_prompt(60, i), {}, {i, 3}, 50, {}});
  auto run = [&] {
    std::vector<int64_t> ids;
    for (const auto& event : generator.run(100, go)) ids.push_back(event.id);
    return ids;
  };
  CHECK(run() == (std::vector<int64_t>{0, 1}));
  generator.append(0, some_prompt(120, 5));  // 181 tokens: three pages, the fourth is the other's
  CHECK(run() == (std::vector<int64_t>{0}));
  CHECK_EQUAL(generator.stats().preemptions, 0);
  generator.append(0, some_prompt(20, 6));
  CHECK(run() == (std::vector<int64_t>{0}));
  CHECK_EQUAL(generator.stats().preemptions, 1);
  CHECK_EQUAL(generator.held_pages(), 4);
  // The other is the oldest that runs now: it takes its page from the first, which waits.
  generator.append(1, {});
  CHECK(run() == (std::vector<int64_t>{1}));
  CHECK_EQUAL(generator.stats().preemptions, 2);
  CHECK_EQUAL(generator.stats().recomputed, 60);
  // Both run: the first has the right of way and takes what it needs.
  generator.append(1, some_prompt(40, 7));
  generator.append(0, {});
  CHECK(run() == (std::vector<int64_t>{0}));
  CHECK_EQUAL(generator.stats().preemptions, 3);
}

TEST("the youngest that runs gives up its pages, and begins again when the older has ended") {
  Generator::Options options = without_calls(256);
  options.cache_tokens = 256;
  Generator generator(*toy().model, toy().adapters, options);
  const std::atomic<bool> go(false);
  for (uint64_t i = 0; i < 2; i++) generator.add({some_prompt(60, i), {}, {i, 3}, 1000, {}});
  auto events = generator.run(1000, go);
  CHECK_EQUAL(events.size(), size_t(1));
  CHECK_EQUAL(events[0].id, 0);
  CHECK_EQUAL(generator.stats().preemptions, 1);
  CHECK_EQUAL(generator.stats().recomputed, 0);
  events = generator.run(1000, go);
  CHECK_EQUAL(events[0].id, 1);
  CHECK_EQUAL(generator.stats().preemptions, 1);
  CHECK_EQUAL(generator.stats().recomputed, 128);
}

TEST("pages and tensors are left to the next generator") {
  IdleDecodeMemory idle;
  Generator::Options options = without_calls(200);
  const auto tasks = std::vector<Task>{plain(some_prompt(100, 1), 1)};
  const auto want = decode(tasks, options, 1).results[0];
  decode(tasks, options, 1, &idle);
  DecodeMemory kept = idle.take(*toy().model, 1);
  const KvPages* kv = kept.kv.get();
  const int64_t allocations = kept.arena->allocations();
  CHECK(kv->pages() == (options.max_sequences + 1) * 4);
  idle.give(std::move(kept));
  // What the last one left in the pages changes nothing.
  CHECK(same(decode(tasks, options, 1, &idle).results[0], want));
  kept = idle.take(*toy().model, 1);
  CHECK(kept.kv.get() == kv);
  CHECK(kept.arena->allocations() <= allocations + 1);
  CHECK(idle.take(*toy().model, 3).kv->pages() == 3);
}

// ---- pages in any order

TEST("a cache whose pages lie in any order gives the bits of one whose pages lie one after another") {
  const Model& model = *toy().model;
  Numbers numbers(11);
  for (int trial = 0; trial < 10; trial++) {
    const int64_t length = 1 + numbers.below(400), count = (length + 63) / 64;
    const Ids ids = some_prompt(length, uint64_t(trial));
    std::vector<int32_t> adapter, flat(static_cast<size_t>(count));
    for (int64_t t = 0; t < length; t++) adapter.push_back(numbers.below(3) - 1);
    std::iota(flat.begin(), flat.end(), 0);
    std::vector<int32_t> paged = flat;
    for (size_t i = paged.size(); i > 1; i--) std::swap(paged[i - 1], paged[size_t(numbers.below(int(i)))]);
    std::vector<Mat> hidden;
    for (const auto* pages : {&flat, &paged}) {
      auto kv = model.backend().kv_pages(ToyDecoder::kLayers, model.attention_shape(), count);
      Mat rows(length, 24);
      // The flat one in one piece, the other in pieces.
      for (int64_t at = 0; at < length;) {
        const int64_t n = pages == &flat ? length : std::min<int64_t>(length - at, 1 + numbers.below(70));
        Arena arena(model.backend());
        Batch batch;
        batch.ids = std::span(ids).subspan(size_t(at), size_t(n));
        for (int64_t t = at; t < at + n; t++) batch.positions.push_back(int32_t(t));
        batch.rows = Rows({0, int32_t(n)}, {adapter.begin() + at, adapter.begin() + at + n}, 2);
        batch.spans.push_back({0, n, at, *pages});
        Tensor out = Decoder(model).forward(arena, batch, toy().adapters, *kv, nullptr);
        model.backend().read(&rows.v[size_t(at * 24)], out);
        at += n;
      }
      hidden.push_back(std::move(rows));
    }
    CHECK_SAME_BITS(hidden[0], hidden[1]);
  }
}

}  // namespace
