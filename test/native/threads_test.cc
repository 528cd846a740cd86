// What several threads do to the engine at once: its stream of jobs, aborts from outside, two models, a rollout that is
// told to pause. Together with executor_test.cc it is what the thread sanitizer sees (npm run test:tsan), so it is kept
// short: the sanitizer makes the engine ten times slower.
#include <atomic>
#include <chrono>
#include <future>
#include <map>
#include <mutex>
#include <thread>

#include "core/abort.h"
#include "core/stream.h"
#include "harness.h"
#include "model/generator.h"
#include "tiny_model.h"

using namespace rolegrad;
using namespace rolegrad::testing;

namespace {

const LossOptions kPolicy{ObjectiveKind::policy, 0.2, 0.2, 0.1, 1, CrossRole::flow};

using Flag = std::shared_ptr<std::atomic<bool>>;
Flag flag() { return std::make_shared<std::atomic<bool>>(false); }

/// A job of the stream, and how it ended: "done", "taken back", or the code of an error.
struct Submitted {
  Stream::Ticket ticket;
  std::future<std::string> end;
};

Submitted submit(std::function<void()> work, Flag stop) {
  auto end = std::make_shared<std::promise<std::string>>();
  auto future = end->get_future();
  auto job = [end, work = std::move(work)](bool run) {
    std::string how = run ? "done" : "taken back";
    try {
      if (run) work();
    } catch (const Error& error) {
      how = error.code();
    }
    end->set_value(how);
  };
  return {Stream::shared().submit(std::move(job), std::move(stop)), std::move(future)};
}

std::vector<double> gradients_of(Trainer& trainer, const Model& model) {
  std::vector<double> all;
  for (int v = 0; v < int(trainer.store()->adapters.size()); v++) {
    const GradTensor flat = trainer.slot(v).gradient.flat();
    std::vector<double> own(size_t(flat.rows * flat.cols));
    model.backend().read(own.data(), flat);
    all.insert(all.end(), own.begin(), own.end());
  }
  return all;
}

struct Work {
  std::vector<double> gradients, norms;
  std::vector<float> logprobs;
  std::vector<int32_t> ids;
  bool operator==(const Work&) const = default;
};

/// Three sequences decoded together; each run ends after `steps` steps, or at the interrupt.
std::vector<int32_t> decode(const Model& model, const AdapterList& adapters, int64_t steps,
                            std::atomic<bool>& interrupt) {
  Generator::Options options;
  options.max_sequences = 2;
  options.max_length = 40;
  options.token_bytes.assign(size_t(model.config().vocab_size), {97});
  options.adapter_of_role = {0};
  Generator generator(model, adapters, std::move(options));
  for (int i = 0; i < 3; i++) generator.add({{1, 2, 3 + i}, {}, {1, uint64_t(i)}, 30, {}});
  std::vector<int32_t> ids;
  while (generator.runnable() > 0) {
    for (const auto& event : generator.run(steps, interrupt)) {
      const auto own = generator.take(event.id).ids;
      ids.insert(ids.end(), own.begin(), own.end());
    }
    interrupt = false;
  }
  return ids;
}

/// A training step, a forward pass and a rollout.
Work work_on(TinyModel& tiny) {
  Work out;
  TinyBatch batch(tiny.config);
  auto store = tiny.adapters(true);
  Trainer trainer(*tiny.model, store);
  trainer.accumulate(batch.view(), kPolicy);
  out.gradients = gradients_of(trainer, *tiny.model);
  const StepResult step = trainer.apply({.learning_rate = 0.01, .max_norm = 0.5}, false);
  for (const auto& norms : {step.gradient_norm, step.update_norm, step.norm})
    out.norms.insert(out.norms.end(), norms.begin(), norms.end());
  Arena arena(tiny.model->backend());
  std::vector<int32_t> adapter(batch.roles.begin(), batch.roles.end());
  out.logprobs = score(*tiny.model, arena, batch.ids, batch.cu, adapter, store->list(), 1, false).logprobs;
  std::atomic<bool> never{false};
  out.ids = decode(*tiny.model, store->list(), 64, never);
  return out;
}

TEST("two models that work on two threads at once give the bits that one alone gives") {
  TinyModel one, two;
  const Work want = work_on(one);
  Work other;
  std::thread thread([&] { other = work_on(two); });
  const Work own = work_on(one);
  thread.join();
  CHECK(own == want);
  CHECK(other == want);
}

TEST("jobs run in order, and one that has not begun is taken back on the thread that asks") {
  std::promise<void> go;
  std::vector<int> order;  // of the stream's thread
  auto hold = [gate = std::make_shared<std::future<void>>(go.get_future())] { gate->wait(); };
  std::vector<Submitted> jobs;
  jobs.push_back(submit(hold, nullptr));
  for (int i = 0; i < 5; i++) jobs.push_back(submit([&order, i] { order.push_back(i); }, flag()));
  CHECK(Stream::shared().cancel(jobs[3].ticket));
  CHECK(!Stream::shared().cancel(jobs[3].ticket));
  go.set_value();
  for (size_t i = 0; i < jobs.size(); i++) CHECK_EQUAL(jobs[i].end.get(), i == 3 ? "taken back" : "done");
  CHECK(order == std::vector<int>({0, 1, 3, 4}));
  CHECK(!Stream::shared().cancel(jobs[5].ticket));
}

TEST("a job that is taken back while the stream works through others runs, or is taken back, but not both") {
  int taken = 0;
  for (int round = 0; round < 300; round++) {
    std::vector<Submitted> jobs;
    std::atomic<int> ran{0};
    for (int i = 0; i < 4; i++) jobs.push_back(submit([&] { ran++; }, flag()));
    int back = 0;
    for (int i = 3; i > 0; i--) back += Stream::shared().cancel(jobs[size_t(i)].ticket);
    int ends = 0;
    for (auto& job : jobs) ends += job.end.get() == "taken back";
    CHECK_EQUAL(ends, back);
    CHECK_EQUAL(ran.load(), 4 - back);
    taken += back;
  }
  CHECK(taken > 0);
}

TEST("an accumulation that another thread aborts is taken back whole, at whatever time") {
  TinyModel tiny;
  TinyBatch batch(tiny.config), before(tiny.config, 2);
  Trainer trainer(*tiny.model, tiny.adapters());
  trainer.accumulate(before.view(), kPolicy);
  const auto first = gradients_of(trainer, *tiny.model);
  trainer.accumulate(batch.view(), kPolicy);
  const auto both = gradients_of(trainer, *tiny.model);
  int aborted = 0;
  for (int delay = 0; delay < 20; delay++) {
    trainer.zero_gradients();
    trainer.accumulate(before.view(), kPolicy);
    Flag stop = flag();
    *stop = delay == 0;  // before it begins, too
    std::atomic<bool> begun{false};
    auto job = submit(
        [&] {
          begun = true;
          trainer.accumulate(batch.view(), kPolicy);
        },
        stop);
    while (!begun) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::microseconds(100 * delay));
    *stop = true;
    const std::string end = job.end.get();
    if (end != "done") {
      aborted++;
      CHECK_EQUAL(end, "ERR_ABORTED");
    }
    CHECK(gradients_of(trainer, *tiny.model) == (end == "done" ? both : first));
  }
  CHECK(aborted > 0);
}

TEST("a rollout that another thread interrupts goes on to the same ids") {
  TinyModel tiny;
  const auto store = tiny.adapters();
  std::atomic<bool> interrupt{false}, done{false};
  const auto want = decode(*tiny.model, store->list(), 1000, interrupt);
  std::thread other([&] {
    while (!done) {
      interrupt = true;
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  });
  for (int i = 0; i < 3; i++) CHECK(decode(*tiny.model, store->list(), 1000, interrupt) == want);
  done = true;
  other.join();
}

using Results = std::map<int64_t, Generator::Result>;

/// Sequences that call a tool now and then, in a cache too small for all of them. What is told of them is dealt with by
/// `deal`, once run() has returned or while it goes on.
struct Callers {
  Generator::Options options;
  const Model& model;

  explicit Callers(const Model& m) : model(m) {
    options.max_sequences = 3;
    options.max_length = 100;
    options.cache_tokens = 256;
    const std::string open = "<", close = ">", other = "x";
    for (int64_t id = 0; id < model.config().vocab_size; id++) {
      const std::string& text = id % 8 == 0 ? open : id % 8 == 1 ? close : other;
      options.token_bytes.emplace_back(text.begin(), text.end());
    }
    options.router.spans = {{"<", ">", 1}};
    options.adapter_of_role = {0, 1};
  }
  static Generator::Request request(int64_t i) { return {{1, 2, int32_t(3 + i % 3)}, {}, {1, uint64_t(i)}, 60, {}}; }
  static void deal(Generator& generator, Results& results, const Generator::Event& event) {
    const std::vector<int32_t> answer{4, int32_t(5 + event.text.size() % 3), 6};
    if (event.kind == Generator::EventKind::call)
      generator.append(event.id, answer);
    else
      results[event.id] = generator.take(event.id);
  }
};

TEST("what another thread tells a rollout while it decodes changes when things are computed, and not what") {
  constexpr int64_t kSequences = 8;
  TinyModel tiny;
  const auto store = tiny.adapters();
  const Callers callers(*tiny.model);
  const std::atomic<bool> go{false};
  Results want;
  {
    Generator generator(callers.model, store->list(), callers.options);
    for (int64_t i = 0; i < kSequences; i++) generator.add(Callers::request(i));
    while (want.size() < size_t(kSequences))
      for (const auto& event : generator.run(1000, go)) Callers::deal(generator, want, event);
  }
  for (int round = 0; round < 3; round++) {
    Generator generator(callers.model, store->list(), callers.options);
    std::mutex mutex;
    std::vector<Generator::Event> told;
    std::atomic<bool> done{false};
    Results results;
    std::thread other([&] {
      for (int64_t added = 0; results.size() < size_t(kSequences); std::this_thread::yield()) {
        if (added < kSequences && generator.sequences() < 5) generator.add(Callers::request(added++));
        std::vector<Generator::Event> events;
        {
          std::lock_guard lock(mutex);
          events.swap(told);
        }
        for (const auto& event : events) Callers::deal(generator, results, event);
        CHECK(generator.runnable() >= 0 && generator.stats().steps >= 0 && generator.held_pages() >= 0);
      }
      done = true;
    });
    int64_t calls = 0;
    while (!done) {
      generator.run(50, go, [&](std::vector<Generator::Event> events) {
        std::lock_guard lock(mutex);
        for (auto& event : events) {
          calls += event.kind == Generator::EventKind::call;
          told.push_back(std::move(event));
        }
      });
      std::this_thread::yield();
    }
    other.join();
    CHECK(calls > 0);
    CHECK_EQUAL(generator.held_pages(), int64_t(0));
    for (const auto& [id, result] : want)
      CHECK(results[id].ids == result.ids && results[id].roles == result.roles &&
            results[id].logprobs == result.logprobs);
  }
}

}  // namespace
