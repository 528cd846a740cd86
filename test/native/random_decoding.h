#pragma once
// Tasks for a generator, and a caller who does everything at random moments.

#include <algorithm>
#include <bit>
#include <map>
#include <vector>

#include "core/error.h"
#include "random_shapes.h"
#include "toy_decoder.h"

namespace rolegrad::testing {

using Ids = std::vector<int32_t>;

struct Task {
  Ids prompt;
  int64_t max_new_tokens = 0;
  uint64_t seed = 0;
  SamplingOptions sampling = {};
  Ids stops = {};
};

/// What the tool answers a sequence's n-th call with: now and then nothing, now and then more than a page.
inline Ids tool_output(const Task& task, int call) {
  Numbers numbers(task.seed * 100 + uint64_t(call));
  const int kind = numbers.below(4);
  Ids ids(size_t(kind == 0 ? 0 : kind == 1 ? numbers.below(90) : numbers.below(12)));
  for (int32_t& id : ids) id = numbers.below(ToyDecoder::kVocabulary);
  return ids;
}

struct Outcome {
  std::vector<Generator::Result> results;
  Generator::Stats stats;
  int64_t held = 0;  // pages, after the last sequence
  int64_t idle_runs = 0;
};

/// Runs all tasks; `seed` decides how many steps a run has, when sequences join and how long a tool takes.
inline Outcome decode(Generator& generator, const std::vector<Task>& tasks, uint64_t seed) {
  Numbers numbers(seed);
  Outcome out;
  out.results.resize(tasks.size());
  struct Live {
    size_t task;
    int calls = 0, wait = -1;  // wait: rounds until the tool answers
  };
  std::map<int64_t, Live> live;
  size_t next = 0, done = 0;
  for (int round = 0; done < tasks.size(); round++) {
    if (round > 100000) throw Error("ERR_STUCK", "no progress");
    for (int joins = numbers.below(4); next < tasks.size() && (joins > 0 || live.empty()); joins--, next++) {
      const Task& task = tasks[next];
      Generator::Request request{task.prompt, task.sampling, {task.seed, 3}, task.max_new_tokens, task.stops};
      live[generator.add(std::move(request))].task = next;
    }
    for (auto& [id, item] : live)
      if (item.wait >= 0 && item.wait-- == 0) generator.append(id, tool_output(tasks[item.task], item.calls++));
    const bool could = generator.runnable() > 0;
    const int64_t before = generator.stats().steps;
    const auto events = generator.run(1 + numbers.below(9), std::atomic<bool>(false));
    if (could && events.empty() && generator.stats().steps == before) out.idle_runs++;
    for (const auto& event : events) {
      if (event.kind == Generator::EventKind::call) {
        live[event.id].wait = numbers.below(3);
        continue;
      }
      out.results[live[event.id].task] = generator.take(event.id);
      live.erase(event.id);
      done++;
    }
  }
  out.stats = generator.stats();
  out.held = generator.held_pages();
  return out;
}

inline bool same(const Generator::Result& a, const Generator::Result& b) {
  return a.ids == b.ids && a.roles == b.roles && a.routing == b.routing && a.sampled == b.sampled &&
         std::equal(a.logprobs.begin(), a.logprobs.end(), b.logprobs.begin(), b.logprobs.end(),
                    [](float x, float y) { return std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y); });
}

/// Prompts in groups, some of which begin as others do, from less than a page to several.
inline std::vector<Task> random_tasks(Numbers& numbers, int64_t max_length) {
  std::vector<Task> tasks;
  Ids before;
  for (int groups = 1 + numbers.below(4); groups > 0; groups--) {
    Ids prompt;
    if (!before.empty() && numbers.below(2))
      prompt.assign(before.begin(), before.begin() + numbers.below(int(before.size())));
    const int kind = numbers.below(3);
    const int length =
        kind == 0 ? 64 * (1 + numbers.below(2)) : 1 + numbers.below(kind == 1 ? 20 : int(max_length) - 1);
    while (int(prompt.size()) < length) prompt.push_back(numbers.below(ToyDecoder::kVocabulary));
    prompt.resize(size_t(std::min<int64_t>(length, max_length - 1)));
    for (int samples = 1 + numbers.below(5); samples > 0; samples--) {
      Task task{prompt, 1 + numbers.below(200), uint64_t(tasks.size()) + 1000};
      if (numbers.below(4) == 0) task.sampling = {0.7, 0.9, 10};
      if (numbers.below(4) == 0) task.stops = {2};
      tasks.push_back(std::move(task));
    }
    before = prompt;
  }
  return tasks;
}

}  // namespace rolegrad::testing
