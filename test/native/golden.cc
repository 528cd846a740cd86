#include "golden.h"

#include <atomic>
#include <cstdio>

#include "core/cpu.h"
#include "core/error.h"
#include "model/generator.h"
#include "model_cases.h"

namespace rolegrad::testing {

namespace {

using Bits = std::vector<std::pair<std::string, std::string>>;

enum class Family { qwen2, qwen3, llama3 };

/// Odd sizes, a vocabulary of more than one chunk of the head.
ModelShape golden_shape(DType dtype, bool tied, Family family = Family::qwen2) {
  ModelShape s{.config = {.vocab_size = 1037,
                          .hidden_size = 29,
                          .layers = 2,
                          .heads = 6,
                          .kv_heads = 2,
                          .head_dim = 10,
                          .intermediate_size = 43,
                          .tied = tied,
                          .attention_bias = family == Family::qwen2,
                          .qk_norm = family == Family::qwen3},
               .dtype = dtype,
               .ranks = {3, 8}};
  if (family == Family::llama3)
    s.config.rope_scaling = {.factor = 8, .low_factor = 1, .high_factor = 4, .original_positions = 64};
  return s;
}

/// Six sampled sequences, four at a time; tokens below 40 open a span of role 1, below 200 close it (a call, answered
/// by three tokens).
std::vector<Generator::Result> roll_out(const Model& model, const AdapterStore& store, uint64_t seed) {
  Generator::Options options;
  options.max_sequences = 4;
  options.max_length = 90;
  options.chunk = 16;
  options.router.base = 0;
  options.router.spans = {{"<", ">", 1}};
  options.adapter_of_role = {0, 1};
  for (int64_t id = 0; id < model.config().vocab_size; id++)
    options.token_bytes.push_back({uint8_t(id < 40 ? '<' : id < 200 ? '>' : 'x')});
  Generator generator(model, store.list(), options);
  std::vector<int64_t> live;
  for (int i = 0; i < 6; i++) {
    Generator::Request request;
    for (int t = 0; t < 5 + 7 * i; t++) request.ids.push_back((17 * t + 31 * i) % 1037);
    request.sampling.temperature = 0.9;
    request.key = {seed, uint64_t(i)};
    request.max_new_tokens = 40;
    request.stop_ids = {1030, 1031, 1032};
    live.push_back(generator.add(std::move(request)));
  }
  const std::atomic<bool> interrupt{false};
  std::vector<Generator::Result> results(live.size());
  while (generator.sequences() > 0)
    for (const auto& event : generator.run(1000, interrupt)) {
      if (event.kind == Generator::EventKind::call) {
        generator.append(event.id, std::vector<int32_t>{7, 8, 9});
        continue;
      }
      for (size_t i = 0; i < live.size(); i++)
        if (live[i] == event.id) results[i] = generator.take(event.id);  // its pages are free for the next
    }
  return results;
}

/// The rollout as a batch: advantages are rewards less their mean, every sampled token weighs 1 / N.
SequenceData trained(const ModelShape& shape, const std::vector<Generator::Result>& results) {
  SequenceData data(shape, {});
  std::vector<double> reward;
  double mean = 0, sampled = 0;
  for (const auto& r : results) {
    reward.push_back(double(r.ids.back() % 5));
    mean += reward.back() / double(results.size());
    for (uint8_t s : r.sampled) sampled += s;
  }
  for (size_t i = 0; i < results.size(); i++) {
    const auto& r = results[i];
    data.ids.insert(data.ids.end(), r.ids.begin(), r.ids.end());
    data.roles.insert(data.roles.end(), r.roles.begin(), r.roles.end());
    data.old_logprob.insert(data.old_logprob.end(), r.logprobs.begin(), r.logprobs.end());
    for (uint8_t s : r.sampled) {
      data.weight.push_back(s ? 1 / sampled : 0);
      data.advantage.push_back(reward[i] - mean);
    }
    data.cu.push_back(int32_t(data.ids.size()));
  }
  return data;
}

void add_rollout(Hash& hash, const std::vector<Generator::Result>& results) {
  for (const auto& r : results) hash.add(r.ids), hash.add(r.roles), hash.add(r.sampled), hash.add(r.logprobs);
}

AdamWStep step_of(int step) {
  AdamWStep s;
  s.learning_rate = 0.02 / (step + 1);
  s.weight_decay = 0.01;
  s.max_norm = 1;
  return s;
}

/// Three steps of adapters: rollout, step, rollout, ...
void adapters_run(Bits& out, const std::string& name, std::unique_ptr<Backend> backend, ModelShape shape,
                  CrossRole cross_role) {
  const ModelData data(std::move(shape));
  auto model = data.model(std::move(backend));
  auto store = data.adapters(*model);
  Trainer trainer(*model, store);
  LossOptions options;
  options.beta = 0.05;
  options.temperature = 0.9f;
  options.cross_role = cross_role;
  Hash rollouts, gradients, losses;
  for (int step = 0; step < 3; step++) {
    const auto results = roll_out(*model, *store, uint64_t(step));
    add_rollout(rollouts, results);
    const SequenceData batch = trained(data.shape(), results);
    LossBatch in = batch.batch();
    in.reference_logprob = {};  // the backbone's own
    const LossResult loss = trainer.accumulate(in, options);
    losses.add(loss.sums.loss), losses.add(loss.sums.kl), losses.add(loss.logprob), losses.add(loss.reference);
    losses.add(loss.per_token);
    gradients.add(gradient_values(trainer, *model));
    losses.add(trainer.apply(step_of(step), false).gradient_norm);
    trainer.zero_gradients();
  }
  Hash adapters, moments, after;
  adapters.add(adapter_values(*store, *model));
  moments.add(moment_values(trainer, *model));
  add_rollout(after, roll_out(*model, *store, 9));
  const SequenceData fixed(data.shape(), {70, 1, 33});
  Arena arena(model->backend());
  const ScoreResult score =
      rolegrad::score(*model, arena, fixed.ids, fixed.cu, fixed.adapter(), store->list(), 1.1f, true);
  after.add(score.logprobs), after.add(score.logits);
  out.insert(out.end(), {{name + " rollouts", rollouts.hex()},
                         {name + " losses", losses.hex()},
                         {name + " gradients", gradients.hex()},
                         {name + " adapters", adapters.hex()},
                         {name + " moments", moments.hex()},
                         {name + " after", after.hex()}});
}

/// Two steps of full training on fixed sequences: one of the policy loss, one supervised.
void full_run(Bits& out, const std::string& name, std::unique_ptr<Backend> backend, bool tied) {
  const ModelData data(golden_shape(DType::bf16, tied));
  auto model = data.model(std::move(backend), true);
  std::shared_ptr<Memory> masters;
  Trainer trainer(*model, std::make_unique<FullParameters>(*model, data.tensors(), masters), nullptr);
  SequenceData batch(data.shape(), {40, 3, 71});
  batch.roles.assign(batch.roles.size(), -1);
  for (auto kind : {ObjectiveKind::policy, ObjectiveKind::sft}) {
    LossOptions options;
    options.kind = kind;
    options.beta = 0.1;
    trainer.accumulate(batch.batch(), options);
    trainer.apply(step_of(0), false);
    trainer.zero_gradients();
  }
  Hash parameters;
  parameters.add(full_values(trainer, *model));
  out.emplace_back(name + " parameters", parameters.hex());
}

}  // namespace

Bits golden_bits(std::unique_ptr<Backend> (*make)(const std::string&), const std::string& isa) {
  Bits out;
  adapters_run(out, "f32, own head, flow:", make(isa), golden_shape(DType::f32, false), CrossRole::flow);
  adapters_run(out, "bf16, tied head, stop:", make(isa), golden_shape(DType::bf16, true, Family::qwen3),
               CrossRole::stop);
  adapters_run(out, "bf16, rope of llama3, exact:", make(isa), golden_shape(DType::bf16, false, Family::llama3),
               CrossRole::exact);
  full_run(out, "full, own head:", make(isa), false);
  full_run(out, "full, tied head:", make(isa), true);
  return out;
}

void print_golden_bits() {
  const auto isas = available_isas();
  if (isas.empty()) throw Error("ERR_CPU_UNSUPPORTED", "Expected a CPU that one of the fast backends can run on");
  for (const auto& [name, hash] : golden_bits(make_cpu_backend, isas.front()))
    std::printf("%s | %s\n", name.c_str(), hash.c_str());
}

}  // namespace rolegrad::testing
