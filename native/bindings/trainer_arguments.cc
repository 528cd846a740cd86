#include "bindings/trainer_arguments.h"

namespace rolegrad::bindings {

PackedArguments packed_argument(const Model& model, const Napi::Object& o) {
  PackedArguments p;
  p.ids = copy_argument<int32_t>(o.Get("inputIds"), "inputIds");
  p.cu = copy_argument<int32_t>(o.Get("cuSeqlens"), "cuSeqlens");
  p.roles = copy_argument<int8_t>(o.Get("roles"), "roles");
  p.table = copy_argument<int32_t>(o.Get("adapterOfRole"), "adapterOfRole");
  check_batch(model, p.ids, p.cu, p.roles, p.table.size());
  check_length(p.roles, p.ids.size(), "roles");
  return p;
}

BatchArguments batch_argument(const Model& model, const Napi::Object& o) {
  BatchArguments b;
  static_cast<PackedArguments&>(b) = packed_argument(model, o);
  b.weight = copy_argument<double>(o.Get("weights"), "weights");
  b.advantage = copy_argument<double>(o.Get("advantages"), "advantages");
  b.old = copy_argument<float>(o.Get("oldLogprobs"), "oldLogprobs");
  b.reference = optional_copy<float>(o.Get("refLogprobs"), "refLogprobs");
  b.dropout = optional_copy<uint64_t>(o.Get("dropoutKeys"), "dropoutKeys");
  b.behaviour = optional_copy<float>(o.Get("behaviourLogprobs"), "behaviourLogprobs");
  size_t n = b.ids.size();
  check_length(b.weight, n, "weights");
  check_length(b.advantage, n, "advantages");
  check_length(b.old, n, "oldLogprobs");
  if (!b.reference.empty()) check_length(b.reference, n, "refLogprobs");
  if (!b.behaviour.empty()) check_length(b.behaviour, n, "behaviourLogprobs");
  return b;
}

LossOptions loss_argument(const Napi::Object& o) {
  LossOptions l;
  l.kind = string_argument(o.Get("kind"), "kind") == "sft" ? ObjectiveKind::sft : ObjectiveKind::policy;
  l.clip_low = number_argument(o.Get("clipLow"), "clipLow");
  l.clip_high = number_argument(o.Get("clipHigh"), "clipHigh");
  l.beta = number_argument(o.Get("beta"), "beta");
  l.temperature = float(number_argument(o.Get("temperature"), "temperature"));
  const std::string cross = string_argument(o.Get("crossRole"), "crossRole");
  l.cross_role = cross == "stop" ? CrossRole::stop : cross == "exact" ? CrossRole::exact : CrossRole::flow;
  const std::string kl = string_argument(o.Get("klEstimator"), "klEstimator");
  l.entropy = number_argument(o.Get("entropyCoefficient"), "entropyCoefficient");
  l.terms.kl = kl == "k1" ? KlEstimator::k1 : kl == "k2" ? KlEstimator::k2 : KlEstimator::k3;
  l.terms.sequence_ratio = boolean_argument(o.Get("sequenceRatio"), "sequenceRatio");
  l.terms.dual_clip = number_argument(o.Get("dualClip"), "dualClip");
  l.terms.importance_cap = number_argument(o.Get("importanceCap"), "importanceCap");
  l.terms.importance_mask = boolean_argument(o.Get("importanceMask"), "importanceMask");
  return l;
}

AdamWStep adamw_argument(const Napi::Object& o) {
  AdamWStep s;
  s.learning_rate = number_argument(o.Get("learningRate"), "learningRate");
  s.beta1 = number_argument(o.Get("beta1"), "beta1");
  s.beta2 = number_argument(o.Get("beta2"), "beta2");
  s.epsilon = number_argument(o.Get("epsilon"), "epsilon");
  s.weight_decay = number_argument(o.Get("weightDecay"), "weightDecay");
  s.max_norm = number_argument(o.Get("maxGradNorm"), "maxGradNorm");
  return s;
}

}  // namespace rolegrad::bindings
