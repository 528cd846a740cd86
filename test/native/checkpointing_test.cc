// Activation checkpointing keeps each layer's input and makes the rest again: not a bit changes, and the memory of a
// pass no longer grows with what a layer saves.
#include "model_cases.h"
#include "ops/host_memory.h"

using namespace rolegrad;
using namespace rolegrad::testing;

namespace {

/// All that two steps on `s` leave, in one number.
std::string trained(Backend& backend, const ModelData& data, const SequenceData& s, const Way& way,
                    bool checkpointing) {
  auto model = data.model(another(backend));
  auto store = data.adapters(*model);
  Trainer trainer(*model, store, nullptr, {.track = way.track, .checkpointing = checkpointing});
  LossBatch batch = s.batch();
  const std::vector<int32_t> shared(batch.adapter_of_role.size(), 0);
  if (data.shape().experts > 0) batch.adapter_of_role = shared;
  batch.reference_logprob = {};  // made here: the pass of the reference takes the same memory
  LossOptions options;
  options.beta = 0.1;
  options.cross_role = way.cross_role;
  Hash hash;
  for (int step = 0; step < 2; step++) {
    const LossResult result = trainer.accumulate(batch, options);
    hash.add(result.sums.loss);
    hash.add(result.logprob);
    hash.add(gradient_values(trainer, *model));
    for (double norm : trainer.gradient_norms()) hash.add(norm);  // of routers and token rows too
    for (int role = 0; role < int(batch.adapter_of_role.size()); role++)
      for (int a = 0; way.track && a < int(store->adapters.size()); a++)
        if (const AdapterGradient* kept = trainer.kept(role, a)) {
          std::vector<double> values(size_t(kept->flat().rows * kept->flat().cols));
          model->backend().read(values.data(), kept->flat());
          hash.add(values);
        }
    const LeakResult leak = trainer.leak(std::vector<LossBatch>{batch}, options);
    hash.add(leak.norm), hash.add(leak.own_dot), hash.add(leak.own);
    trainer.apply({.learning_rate = 0.01, .max_norm = 0.5}, false);
    trainer.zero_gradients();
    hash.add(adapter_values(*store, *model));
    hash.add(moment_values(trainer, *model));
  }
  return hash.hex();
}

void check_adapters(Backend& backend, int runs) {
  int run = 0;
  for (const Way& way : ways())
    for (int i = 0; i < shape_runs(runs); i++, run++) {
      ModelShape shape = random_model(run);
      way.change(shape);
      const ModelData data(shape);
      const SequenceData s(random_model(run), random_lengths(run));
      if (trained(backend, data, s, way, true) != trained(backend, data, s, way, false))
        fail(__FILE__, __LINE__, std::string(way.name) + ", " + shape.name);
    }
}

BACKEND_TEST("with checkpointing every bit of a training of adapters is that without, in random models") {
  check_adapters(backend, 2);
}

/// All that two steps of full training leave, in one number.
std::string trained_whole(Backend& backend, const ModelData& data, const SequenceData& s, bool checkpointing) {
  auto model = data.model(another(backend), true);
  std::shared_ptr<Memory> masters;
  Trainer trainer(*model, std::make_unique<FullParameters>(*model, data.tensors(), masters), nullptr,
                  {.checkpointing = checkpointing});
  Hash hash;
  for (int step = 0; step < 2; step++) {
    hash.add(trainer.accumulate(s.batch(), {}).logprob);
    hash.add(full_gradients(trainer, *model));
    trainer.apply({.learning_rate = 0.01, .max_norm = 0.5}, false);
    trainer.zero_gradients();
    hash.add(full_values(trainer, *model));
  }
  return hash.hex();
}

BACKEND_TEST("with checkpointing every bit of a full training is that without, in random models") {
  for (int run = 0; run < shape_runs(6); run++) {
    const ModelData data(random_model(run));
    SequenceData s(data.shape(), random_lengths(run));
    s.roles.assign(s.roles.size(), -1);
    if (trained_whole(backend, data, s, true) != trained_whole(backend, data, s, false))
      fail(__FILE__, __LINE__, data.shape().name);
  }
}

TEST("with checkpointing every bit of a training is that without (reference)") {
  ModelShape shape;
  ModelConfig& c = shape.config;
  c.vocab_size = 23, c.hidden_size = 8, c.layers = 3, c.heads = 2, c.kv_heads = 1, c.head_dim = 4;
  c.intermediate_size = 11, c.qk_norm = true;
  shape.ranks = {2, 1};
  for (const Way& way : ways()) {
    ModelShape own = shape;
    way.change(own);
    const ModelData data(own);
    const SequenceData s(shape, {9, 1, 4});
    CHECK_EQUAL(trained(reference_backend(), data, s, way, true), trained(reference_backend(), data, s, way, false));
  }
  const ModelData data(shape);
  SequenceData s(shape, {9, 1, 4});
  s.roles.assign(s.roles.size(), -1);
  CHECK_EQUAL(trained_whole(reference_backend(), data, s, true), trained_whole(reference_backend(), data, s, false));
}

/// Bytes that the passes of a training hold at most.
struct PassBytes {
  int64_t arena = 0, kv = 0;
  int64_t all() const { return arena + kv; }
};

constexpr int64_t kTokens = 384, kHidden = 64;

PassBytes pass_bytes(Backend& backend, int64_t layers, bool checkpointing, bool whole) {
  ModelShape shape;
  ModelConfig& c = shape.config;
  c.vocab_size = 500, c.hidden_size = kHidden, c.layers = layers, c.heads = 4, c.kv_heads = 2, c.head_dim = 16;
  c.intermediate_size = 5 * kHidden;
  shape.ranks = {8, 8};
  const ModelData data(shape);
  auto model = data.model(another(backend), whole);
  std::shared_ptr<Memory> masters;
  const TrainerOptions options{.track = false, .checkpointing = checkpointing};
  auto trainer = whole
                     ? std::make_unique<Trainer>(
                           *model, std::make_unique<FullParameters>(*model, data.tensors(), masters), nullptr, options)
                     : std::make_unique<Trainer>(*model, data.adapters(*model), nullptr, options);
  SequenceData s(shape, {200, 130, kTokens - 330});
  if (whole) s.roles.assign(s.roles.size(), -1);
  const int64_t before = host_memory_use().bytes;
  auto step = [&] {
    trainer->accumulate(s.batch(), {});
    trainer->apply({.learning_rate = 0.01}, false);
    trainer->zero_gradients();
  };
  step();
  // All the backend memory that a step takes is the arena's.
  const int64_t bytes = host_memory_use().bytes - before, blocks = host_memory_use().allocations;
  CHECK_EQUAL(bytes, int64_t(trainer->arena().bytes() + trainer->arena().kv_bytes()));
  const PassBytes out{int64_t(trainer->arena().peak_bytes()), int64_t(trainer->arena().kv_bytes())};
  CHECK(out.all() <= bytes);
  step();
  CHECK_EQUAL(host_memory_use().bytes - before, bytes);
  CHECK_EQUAL(host_memory_use().allocations, blocks);
  CHECK_EQUAL(trainer->arena().peak_bytes(), out.arena);
  return out;
}

BACKEND_TEST("with checkpointing one layer more costs its input alone") {
  for (bool whole : {false, true}) {
    const PassBytes few = pass_bytes(backend, 2, true, whole), many = pass_bytes(backend, 12, true, whole);
    CHECK_CLOSE(double(many.arena - few.arena) / double(10 * kTokens * kHidden * int64_t(sizeof(float))), 1, 0.01);
    CHECK_EQUAL(many.kv, few.kv);
  }
}

BACKEND_TEST("with checkpointing the passes of 16 layers take less than a quarter of their memory without") {
  for (bool whole : {false, true}) {
    const PassBytes with = pass_bytes(backend, 16, true, whole), without = pass_bytes(backend, 16, false, whole);
    CHECK(4 * with.all() < without.all());
    CHECK_CLOSE(double(without.kv) / double(with.kv), 16, 0.1);
  }
}

}  // namespace
