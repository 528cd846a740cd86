// What fails in the midst of work: every allocation, every task, an abort at every task. The caller gets the exception,
// gradients and adapters are what they were, and the next work gives the bits that it always gives.

#include <atomic>
#include <cstring>
#include <functional>
#include <thread>

#include "allocation.h"
#include "core/abort.h"
#include "core/checked.h"
#include "core/executor.h"
#include "core/fault.h"
#include "harness.h"
#include "model/generator.h"
#include "random_shapes.h"
#include "tiny_model.h"

using namespace rolegrad;
using namespace rolegrad::testing;

namespace {

/// What training changes: gradients, moments, parameters, as bytes.
std::string state_of(Trainer& trainer, const Model& model) {
  std::string bytes;
  auto add = [&](const auto& values) {
    bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(values[0]));
  };
  auto add_tensor = [&](const Tensor& t) {
    std::vector<float> values(size_t(t.rows * t.cols));
    model.backend().read(values.data(), t);
    add(values);
  };
  if (FullParameters* full = trainer.full()) {
    std::vector<GradTensor> buffers;
    full->add_gradients(buffers);
    for (const GradTensor& buffer : buffers) {
      std::vector<double> gradient(size_t(buffer.rows * buffer.cols));
      model.backend().read(gradient.data(), buffer);
      add(gradient);
    }
    for (const auto& entry : full->entries()) {
      add_tensor(full->value(entry));
      add_tensor(full->first_moment(entry));
      add_tensor(full->second_moment(entry));
    }
    add(std::vector<uint64_t>{trainer.full_steps});
    // What the model itself runs on.
    Arena arena(model.backend());
    const std::vector<int32_t> ids{3, 1, 4, 1, 5, 9, 2, 6}, cu{0, 8};
    add(score(model, arena, ids, cu, std::vector<int32_t>(ids.size(), -1), {}, 1, true).logits);
    return bytes;
  }
  for (size_t v = 0; v < trainer.store()->adapters.size(); v++) {
    auto& slot = trainer.slot(int(v));
    GradTensor flat = slot.gradient.flat();
    std::vector<double> gradient(size_t(flat.rows * flat.cols));
    model.backend().read(gradient.data(), flat);
    add(gradient);
    for (const auto& own : slot.moments) {
      add_tensor(trainer.moments(*own.first, int(v)));
      add_tensor(trainer.moments(*own.second, int(v)));
    }
    add_tensor(trainer.store()->adapters[v]->flat());
    add(std::vector<uint64_t>{slot.steps});
  }
  if (TokenTraining* tokens = trainer.tokens()) {
    GradTensor sums = tokens->sums();
    std::vector<double> gradient(size_t(sums.rows * sums.cols));
    model.backend().read(gradient.data(), sums);
    add(gradient);
    add_tensor(tokens->first());
    add_tensor(tokens->second());
    add_tensor(trainer.store()->tokens->flat());
    add(std::vector<uint64_t>{tokens->steps});
  }
  return bytes;
}

/// Runs `work` with its n-th allocation (or whatever `arm` arms) failing, for every n until none fails any more (with
/// ROLEGRAD_RUNS=0, where code is sanitized and slow, every third). After every failure `check`. Returns how many there
/// were.
int64_t fail_everywhere(const std::function<void(int64_t)>& arm, const std::function<bool()>& failed,
                        const std::function<void()>& work, const std::function<void()>& check) {
  const int64_t stride = shape_runs(1) > 0 ? 1 : 3;
  for (int64_t n = 1;; n += stride) {
    bool threw = false;
    arm(n);
    try {
      work();
    } catch (const std::bad_alloc&) {
      threw = true;
    } catch (const Error& error) {
      threw = true;
      CHECK(error.code() == "ERR_OUT_OF_MEMORY" || error.code() == "ERR_ABORTED");
    }
    const bool hit = failed();
    arm(0);
    if (threw) check();
    CHECK(threw || !hit);
    if (!threw) return n - 1;
  }
}

int64_t fail_allocations(const std::function<void()>& work, const std::function<void()>& check) {
  return fail_everywhere(fail_allocation, allocation_failed, work, check);
}

int64_t fail_faults(Fault fault, const std::function<void()>& work, const std::function<void()>& check) {
  auto failed = [fault] { return fault_countdown[size_t(fault)].load() <= 0; };
  return fail_everywhere([fault](int64_t n) { arm_fault(fault, n); }, failed, work, check);
}

const LossOptions kPolicy{ObjectiveKind::policy, 0.2, 0.2, 0.1, 1, CrossRole::flow};

void fail_accumulation(bool tokens, bool checkpointing = false) {
  TinyModel tiny;
  TinyBatch batch(tiny.config), before(tiny.config, 2);
  // What there is to come to in the end is the same with checkpointing as without.
  const TrainerOptions options{.track = false, .checkpointing = checkpointing};
  Trainer want(*tiny.model, tiny.adapters(tokens));
  want.accumulate(before.view(), kPolicy);
  const std::string first = state_of(want, *tiny.model);
  want.accumulate(batch.view(), kPolicy);

  // A trainer whose buffers, caches and arena are new each time, so that those allocations fail too.
  std::atomic<bool> never{false};
  AbortScope scope(&never);
  for (bool fresh : {true, false}) {
    auto model = tiny.load("cpu");
    std::swap(model, tiny.model);
    Trainer trainer(*tiny.model, tiny.adapters(tokens), nullptr, options);
    trainer.accumulate(before.view(), kPolicy);
    if (!fresh) {
      trainer.accumulate(batch.view(), kPolicy);
      trainer.zero_gradients();
      trainer.accumulate(before.view(), kPolicy);
    }
    auto work = [&] { trainer.accumulate(batch.view(), kPolicy); };
    auto check = [&] { CHECK(state_of(trainer, *tiny.model) == first); };
    auto again = [&] {
      CHECK(state_of(trainer, *tiny.model) == state_of(want, *model));
      trainer.zero_gradients();
      trainer.accumulate(before.view(), kPolicy);
    };
    CHECK(fail_allocations(work, check) > 50);
    again();
    fail_faults(Fault::allocation, work, check);
    again();
    CHECK(fail_faults(Fault::task, work, check) > 20);
    again();
    std::swap(model, tiny.model);
  }
}

TEST("memory that runs out anywhere in an accumulation leaves the gradients as they were") {
  fail_accumulation(false);
  fail_accumulation(true);
  fail_accumulation(true, true);
}

/// `by_role`: one adapter for both roles, with moments of each role's loss.
void fail_step(bool tokens, bool by_role = false) {
  TinyModel tiny;
  TinyBatch batch(tiny.config);
  const AdamWStep step{.learning_rate = 0.01, .max_norm = 0.5};
  const TrainerOptions options{.moment_roles = by_role ? 2 : 0};
  const std::vector<int32_t> shared{0, 0};
  auto adapters = [&] {
    auto store = tiny.adapters(tokens);
    if (by_role) store->names.resize(1), store->adapters.resize(1);
    return store;
  };
  auto accumulate = [&](Trainer& trainer) {
    LossBatch view = batch.view();
    if (by_role) view.adapter_of_role = shared;
    trainer.accumulate(view, kPolicy);
  };
  Trainer want(*tiny.model, adapters(), nullptr, options);
  accumulate(want);
  want.apply(step, false);
  std::atomic<bool> never{false};
  AbortScope scope(&never);
  for (bool pinned : {false, true}) {
    Trainer trainer(*tiny.model, adapters(), nullptr, options);
    accumulate(trainer);
    const std::string before = state_of(trainer, *tiny.model);
    AdapterList held;
    auto work = [&] {
      if (pinned) held = trainer.store()->list();
      trainer.apply(step, false);
    };
    auto check = [&] { CHECK(state_of(trainer, *tiny.model) == before); };
    fail_allocations(work, check);
    CHECK(state_of(trainer, *tiny.model) == state_of(want, *tiny.model));
  }
}

TEST("a step is taken whole or not at all, whatever fails in it") {
  fail_step(false);
  fail_step(true);
  fail_step(false, true);
  fail_step(true, true);
}

/// A trainer of all parameters with the gradient of a batch, and the values that they have.
struct FullTraining {
  explicit FullTraining(bool tied, bool checkpointing = false) {
    tiny.config.tied = tied;
    model = tiny.load("cpu");
    batch.roles.assign(batch.roles.size(), -1);
    trainer = std::make_unique<Trainer>(*model, std::make_unique<FullParameters>(*model, tiny.tensors, masters),
                                        nullptr, TrainerOptions{.track = false, .checkpointing = checkpointing});
    trainer->accumulate(batch.view(), kSupervised);
  }
  std::string state() { return state_of(*trainer, *model); }
  void step() { trainer->apply({.learning_rate = 0.01, .max_norm = 0.5}, false); }

  static constexpr LossOptions kSupervised{.kind = ObjectiveKind::sft};
  TinyModel tiny;
  TinyBatch batch{tiny.config};
  std::unique_ptr<Model> model;
  std::shared_ptr<Memory> masters;
  std::unique_ptr<Trainer> trainer;
};

TEST("a step of full training is taken whole or not at all, down to the weights that the model runs on") {
  for (bool tied : {false, true}) {
    FullTraining want(tied), own(tied);
    want.step();
    const std::string before = own.state();
    std::atomic<bool> stop{true};
    AbortScope scope(&stop);
    CHECK_THROWS("ERR_ABORTED", own.step());
    stop = false;
    auto check = [&] { CHECK(own.state() == before); };
    check();
    CHECK(fail_allocations([&] { own.step(); }, check) > 5);
    CHECK(own.state() == want.state());
    CHECK(own.state() != before);
    // An abort that comes while the model takes its weights over does not stop that.
    stop = true;
    own.trainer->full()->publish(1);
    stop = false;
    CHECK_EQUAL(fail_allocations([&] { own.trainer->full()->publish(1); }, check), 0);
    CHECK(own.state() == want.state());
  }
}

TEST("memory that runs out anywhere in an accumulation of full training leaves the gradients as they were") {
  for (bool checkpointing : {false, true}) {
    FullTraining want(true), own(true, checkpointing);
    want.trainer->accumulate(want.batch.view(), FullTraining::kSupervised);
    const std::string before = own.state();
    auto work = [&] { own.trainer->accumulate(own.batch.view(), FullTraining::kSupervised); };
    auto check = [&] { CHECK(own.state() == before); };
    CHECK(fail_allocations(work, check) > 50);
    CHECK(own.state() == want.state());
  }
}

TEST("loading, scoring and decoding without memory throw and leave nothing behind") {
  TinyModel tiny;
  TinyBatch batch(tiny.config);
  std::atomic<bool> never{false};
  AbortScope scope(&never);
  auto nothing = [] {};
  std::unique_ptr<Model> model;
  auto load = [&] { model = tiny.load("cpu"); };
  CHECK(fail_allocations(load, nothing) > 20);
  CHECK(fail_faults(Fault::allocation, load, nothing) > 5);
  fail_faults(Fault::task, load, nothing);

  Arena arena(model->backend());
  ScoreResult result;
  auto run = [&] {
    result = score(*model, arena, batch.ids, batch.cu, std::vector<int32_t>(batch.ids.size(), -1), {}, 1, true);
  };
  run();
  const auto want = result.logprobs;
  auto check = [&] {
    run();
    CHECK(result.logprobs == want);
  };
  CHECK(fail_allocations(run, check) > 20);
  fail_faults(Fault::allocation, run, check);
  CHECK(fail_faults(Fault::task, run, check) > 10);

  auto decode = [&] {
    Generator::Options options;
    options.max_sequences = 2;
    options.max_length = 24;
    options.token_bytes.assign(size_t(tiny.config.vocab_size), {97});
    options.adapter_of_role = {-1};
    Generator generator(*model, {}, std::move(options));
    for (int i = 0; i < 3; i++) generator.add({{1, 2, 3 + i}, {}, {1, uint64_t(i)}, 6, {}});
    std::atomic<bool> interrupt{false};
    while (generator.runnable() > 0)
      for (const auto& event : generator.run(64, interrupt)) generator.take(event.id);
  };
  CHECK(fail_allocations(decode, nothing) > 50);
  CHECK(fail_faults(Fault::allocation, decode, nothing) >= 2);
  fail_faults(Fault::task, decode, nothing);
}

TEST("an arena that gets no memory begins anew") {
  auto backend = make_reference_backend();
  Arena arena(*backend);
  for (int i = 0; i < 3; i++) arena.tensor(1 << 10, 1 << 11);  // 8 MiB each: several blocks
  const size_t bytes = arena.bytes();
  arm_fault(Fault::allocation, 1);
  CHECK_THROWS("ERR_OUT_OF_MEMORY", arena.reset());
  CHECK_EQUAL(arena.bytes(), 0u);
  Tensor t = arena.tensor(1 << 10, 1 << 11);
  t.data[(1 << 21) - 1] = 1;
  arm_fault(Fault::allocation, 1);
  CHECK_THROWS("ERR_OUT_OF_MEMORY", arena.tensor(1 << 10, 1 << 11));
  arena.tensor(1 << 10, 1 << 11);
  arena.reset();
  CHECK(arena.bytes() >= bytes / 2);
}

TEST("a product of sizes that no memory holds is refused") {
  CHECK_EQUAL(checked_bytes({3, 4, 5}), 60u);
  CHECK_EQUAL(checked_bytes({0, int64_t(1) << 62, int64_t(1) << 62}), 0u);
  CHECK_THROWS("ERR_OUT_OF_MEMORY", checked_bytes({int64_t(1) << 40, int64_t(1) << 40}));
  CHECK_THROWS("ERR_OUT_OF_MEMORY", checked_bytes({int64_t(1) << 62, 2}));
  CHECK_THROWS("ERR_OUT_OF_MEMORY", checked_bytes({3, -1}));
  TinyModel tiny;
  CHECK_THROWS("ERR_OUT_OF_MEMORY", tiny.model->backend().kv_pages(1 << 12, {1 << 12, 1 << 12, 1 << 12, 1}, 1 << 30));
}

TEST("an abort between any two tasks ends the work and takes it back") {
  TinyModel tiny;
  TinyBatch batch(tiny.config), before(tiny.config, 2);
  Trainer trainer(*tiny.model, tiny.adapters());
  trainer.accumulate(before.view(), kPolicy);
  const std::string first = state_of(trainer, *tiny.model);
  std::atomic<bool> stop{true};
  AbortScope scope(&stop);
  CHECK_THROWS("ERR_ABORTED", trainer.accumulate(batch.view(), kPolicy));
  CHECK_THROWS("ERR_ABORTED", trainer.apply({}, false));
  CHECK_THROWS("ERR_ABORTED", Executor::shared().parallel_for(3, [](int64_t, int) { CHECK(false); }));
  CHECK(state_of(trainer, *tiny.model) == first);

  // Set by a task: those that have not begun are left out, on every thread.
  stop = false;
  std::atomic<int64_t> ran{0};
  CHECK_THROWS("ERR_ABORTED", Executor::shared().parallel_for(100000, [&](int64_t, int) {
    if (ran++ == 100) stop = true;
  }));
  CHECK(ran.load() < 100000);
  {
    AbortScope whole(nullptr);
    ran = 0;
    Executor::shared().parallel_for(1000, [&](int64_t, int) { ran++; });
    CHECK_EQUAL(ran.load(), 1000);
  }
}

TEST("two threads that call the executor take turns") {
  std::atomic<int64_t> inside{0}, most{0};
  auto call = [&](std::atomic<int>& calls) {
    for (int i = 0; i < 200; i++)
      Executor::shared().parallel_for(8, [&](int64_t, int) {
        calls++;
        int64_t now = ++inside, seen = most.load();
        while (now > seen && !most.compare_exchange_weak(seen, now)) {
        }
        inside--;
      });
  };
  std::atomic<int> a{0}, b{0};
  std::thread other([&] { call(a); });
  call(b);
  other.join();
  CHECK_EQUAL(a.load(), 1600);
  CHECK_EQUAL(b.load(), 1600);
  CHECK(most.load() <= Executor::shared().threads());
}

}  // namespace
