// Decoding by several writers: a hybrid of two models, with a cache each or one for both; and the placebo, whose routes
// are shuffled.
#include <atomic>

#include "core/executor.h"
#include "model/generator.h"
#include "random_decoding.h"
#include "toy_decoder.h"
#include "train/trainer.h"

using namespace rolegrad;
using namespace rolegrad::testing;

namespace {

ToyDecoder& first() {
  static ToyDecoder decoder(make_cpu_backend(), 7);
  return decoder;
}

ToyDecoder& second() {
  static ToyDecoder decoder(make_cpu_backend(), 8);
  return decoder;
}

/// Role 0 by the first model, with its adapter 0 on role 1's text; role 1 by the second, with its adapter 1 throughout.
std::vector<Generator::Writer> hybrid() {
  return {{first().model.get(), first().adapters, {-1, 0}}, {second().model.get(), second().adapters, {1, 1}}};
}

Generator::Options options_of_two(bool shared) {
  Generator::Options options = first().options();
  options.writer_of_role = {0, 1};
  options.shared_cache = shared;
  return options;
}

/// log p of each token of `ids` under one writer who reads everything.
std::vector<float> logprobs_of(const Generator::Writer& writer, const Generator::Result& result) {
  Arena arena(writer.model->backend());
  std::vector<int32_t> cuts{0, int32_t(result.ids.size())}, adapter;
  for (int8_t role : result.routing.empty() ? result.roles : result.routing)
    adapter.push_back(writer.adapter_of_role[size_t(role)]);
  return score(*writer.model, arena, result.ids, cuts, adapter, writer.adapters, 1, false).logprobs;
}

TEST("a role's tokens have the log-probabilities of its own model, which has read the whole history") {
  Numbers numbers(3);
  Generator::Options options = options_of_two(false);
  options.max_length = 260;
  std::vector<Task> tasks;
  for (int i = 0; i < 8; i++) tasks.push_back({numbers.below(2) ? Ids(90, 5) : Ids(70, 6), 150, uint64_t(i)});
  Generator generator(hybrid(), options);
  const Outcome got = decode(generator, tasks, 1);
  const auto writers = hybrid();
  std::array<int64_t, 2> sampled{}, equal{};
  for (const auto& result : got.results) {
    const std::array<std::vector<float>, 2> want{logprobs_of(writers[0], result), logprobs_of(writers[1], result)};
    for (size_t t = 1; t < result.ids.size(); t++) {
      if (!result.sampled[t]) continue;
      const size_t w = size_t(result.roles[t - 1]);
      sampled[w]++;
      equal[w] += want[w][t] == result.logprobs[t];
    }
  }
  CHECK(sampled[0] > 50);
  CHECK(sampled[1] > 50);
  CHECK_EQUAL(equal[0], sampled[0]);
  CHECK_EQUAL(equal[1], sampled[1]);
  CHECK(got.stats.shared > 0);
  CHECK_EQUAL(got.held, 0);
}

TEST("writers of one model who share a cache are its routed adapters") {
  Generator::Options options = first().options();
  options.max_length = 230;
  Numbers numbers(11);
  const auto tasks = random_tasks(numbers, options.max_length);
  Generator routed(*first().model, first().adapters, options);
  Generator::Options two = options_of_two(true);
  two.max_length = 230;
  Generator shared({{first().model.get(), first().adapters, {0, -1}}, {first().model.get(), first().adapters, {-1, 1}}},
                   two);
  const Outcome want = decode(routed, tasks, 1), got = decode(shared, tasks, 2);
  for (size_t i = 0; i < tasks.size(); i++) CHECK(same(got.results[i], want.results[i]));
}

TEST("a hybrid's answers are the same in any memory, batch and order of events") {
  const int threads = Executor::shared().threads();
  Generator::Stats total;
  const int64_t trials = std::max(3, shape_runs(30));
  for (uint64_t trial = 0; trial < uint64_t(trials); trial++) {
    Numbers numbers(trial + 500);
    Generator::Options options = options_of_two(trial % 2 == 1);
    options.shuffle_routes = numbers.below(3) == 0;
    options.max_length = 100 + numbers.below(200);
    const auto tasks = random_tasks(numbers, options.max_length);
    std::vector<Generator::Result> want;
    for (const Task& task : tasks) {
      Generator::Options alone = options;
      alone.max_sequences = 1;
      Generator generator(hybrid(), alone);
      want.push_back(std::move(decode(generator, {task}, 1).results[0]));
    }
    for (int way = 0; way < 3; way++) {
      options.max_sequences = 1 + numbers.below(12);
      options.cache_tokens = options.max_length + (way == 0 ? 0 : numbers.below(int(options.max_length) * 4));
      options.chunk = way == 1 ? 1 + numbers.below(40) : 1 + numbers.below(2000);
      if (way == 2) Executor::shared().limit_threads(1);
      Generator generator(hybrid(), options);
      const Outcome got = decode(generator, tasks, trial * 3 + uint64_t(way));
      Executor::shared().limit_threads(threads);
      size_t equal = 0;
      for (size_t i = 0; i < tasks.size(); i++) equal += same(got.results[i], want[i]);
      CHECK_EQUAL(equal, tasks.size());
      CHECK_EQUAL(got.held, 0);
      CHECK_EQUAL(got.idle_runs, 0);
      total.preemptions += got.stats.preemptions;
      total.shared += got.stats.shared;
    }
  }
  CHECK(total.preemptions > trials);
  CHECK(total.shared > 10 * trials);
}

TEST("shuffled routes keep spans and how many each role has, and log-probabilities are those of the routes taken") {
  Generator::Options options = first().options();
  options.max_length = 400;
  options.shuffle_routes = true;
  std::vector<Task> tasks;
  for (uint64_t i = 0; i < uint64_t(std::max(24, shape_runs(64))); i++) tasks.push_back({Ids(70, 6), 320, i});
  Generator generator(*first().model, first().adapters, options);
  const Outcome got = decode(generator, tasks, 4);
  const Generator::Writer writer{first().model.get(), first().adapters, options.adapter_of_role};
  int64_t pairs = 0, swapped = 0;
  for (const auto& r : got.results) {
    CHECK_EQUAL(r.routing.size(), r.roles.size());
    const auto want = logprobs_of(writer, r);
    for (size_t t = 0; t < r.ids.size(); t++) {
      if (r.sampled[t]) CHECK(want[t] == r.logprobs[t]);
      if (t < 70) CHECK_EQUAL(int(r.routing[t]), 0);
    }
    std::vector<size_t> starts;  // of runs
    for (size_t t = 70; t < r.ids.size(); t++)
      if (t == 70 || r.roles[t] != r.roles[t - 1]) starts.push_back(t);
    starts.push_back(r.ids.size());
    for (size_t k = 0; k + 1 < starts.size(); k++) {
      for (size_t t = starts[k]; t < starts[k + 1]; t++) CHECK_EQUAL(int(r.routing[t]), int(r.routing[starts[k]]));
      if (k % 2 == 0 && k + 2 < starts.size()) {
        const int a = r.routing[starts[k]], b = r.routing[starts[k + 1]];
        CHECK_EQUAL(a + b, 1);
        pairs++, swapped += a != r.roles[starts[k]];
      }
    }
  }
  CHECK(pairs > int64_t(tasks.size()) * 9 / 10);
  CHECK(swapped > pairs / 3 && swapped < 2 * pairs / 3);
}

TEST("writers who cannot write together are refused") {
  ToyDecoder wide(make_cpu_backend(), 9, 3);
  Generator::Options options = options_of_two(true);
  options.max_length = 100;
  std::vector<Generator::Writer> two{{first().model.get(), {}, {-1, -1}}, {wide.model.get(), {}, {-1, -1}}};
  CHECK_THROWS("ERR_WRITERS", Generator(two, options));
  options.shared_cache = false;
  Generator separate(two, options);
}

}  // namespace
