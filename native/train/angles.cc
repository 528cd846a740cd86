// Inner products of gradients (method.md, section 6): for a linear y = x w^T the gradient of a loss is dy^T x, so a
// module's are made from x and dy a block of rows at a time, turned into inner products, and forgotten.
#include "train/angles.h"

#include <array>

#include "core/abort.h"
#include "core/error.h"
#include "train/angle_collector.h"

namespace rolegrad {

/// What one layer's backward passes leave for the gradients of its parameters.
class AngleMeasure::Tap : public BackwardTap {
 public:
  Tap(Backend& b, Arena& arena, const Layer& layer, const AngleOptions& options, int64_t rows)
      : b_(b), arena_(arena), layer_(layer), options_(options) {
    if (!options.vectors) return;
    ones = arena.tensor(rows, 1);
    std::vector<float> values(size_t(rows), 1.0f);
    b.write(ones, values.data());
  }
  void begin_pass() { pass_++; }
  void linear(int group, const Tensor& x, const Tensor& dy, const Tensor&, const Tensor& du) override {
    auto g = size_t(group);
    if (pass_ == 0) xs[g] = copy(x);
    dys[g].push_back(copy(dy));
    if (options_.adapters) dus[g].push_back(du.data ? copy(du) : Tensor{});
  }
  void norm(const Tensor& w, const Tensor& x, const Tensor& dy) override {
    if (!options_.vectors) return;
    const std::array<const Tensor*, 4> weights{&layer_.attention_norm, &layer_.mlp_norm, &layer_.q_norm,
                                               &layer_.k_norm};
    for (size_t i = 0; i < weights.size(); i++)
      if (weights[i]->data == w.data) {
        norm_x[i] = x;
        norm_dy[i].push_back(copy(dy));
      }
  }
  bool embedding() const override { return options_.vectors || options_.tables; }

  std::array<Tensor, kGroups> xs;
  std::array<std::vector<Tensor>, kGroups> dys, dus;  // by pass
  std::array<Tensor, 4> norm_x;                       // attention, mlp, q, k
  std::array<std::vector<Tensor>, 4> norm_dy;
  Tensor ones;

 private:
  Tensor copy(const Tensor& x) {
    Tensor y = arena_.tensor(x.rows, x.cols);
    b_.copy(y, x);
    return y;
  }
  Backend& b_;
  Arena& arena_;
  const Layer& layer_;
  const AngleOptions& options_;
  int pass_ = -1;
};

AngleMeasure::AngleMeasure(const Model& model, AdapterList adapters, std::vector<AngleQuery> queries,
                           AngleOptions options)
    : model_(model), adapters_(std::move(adapters)), options_(options), arena_(model.backend()) {
  if (adapters_.soft() || adapters_.tokens)
    throw Error("ERR_INVALID_ARGUMENT", "Expected adapters without soft routing and trained rows of tokens");
  for (auto& q : queries) queries_.push_back(std::make_unique<Prepared>(std::move(q), adapters_, options.passes));
  next_ = model.config().layers - 1;
  collector_ = std::make_unique<Collector>(*this);
}

AngleMeasure::~AngleMeasure() = default;

int64_t AngleMeasure::queries() const { return int64_t(queries_.size()); }

void AngleMeasure::forward() {
  Backend& b = model_.backend();
  if (prepared_ >= queries_.size()) throw Error("ERR_INVALID_ARGUMENT", "Expected a query that is still to come");
  Prepared& q = *queries_[prepared_];
  const Decoder decoder(model_);
  const int64_t rows = int64_t(q.query.ids.size()), h = model_.config().hidden_size;
  KvPages& kv = arena_.kv_pages(1, model_.attention_shape(), q.packed.pages);
  Tensor hidden = decoder.forward(arena_, q.packed.batch, adapters_, kv, &q.saved);
  for (int p = 0; p < options_.passes; p++) q.dh.push_back(arena_.tensor(rows, h));

  for (int64_t s = 0; s < q.rollouts(); s++) {
    for (int64_t t = q.begin(s) + 1; t < q.begin(s) + q.count(s); t++) {
      bool any = false;
      for (int p = 0; p < options_.passes; p++) any |= q.query.weights[size_t(p * rows + t)] != 0;
      if (!any) continue;
      q.positions.push_back(int32_t(t - 1));
      q.targets.push_back(q.query.ids[size_t(t)]);
    }
    q.cuts.push_back(int32_t(q.positions.size()));
  }
  const int64_t n = int64_t(q.positions.size());
  const auto whole = arena_.mark();
  q.raw = arena_.tensor(n, h), q.normed = arena_.tensor(n, h), q.lse = arena_.tensor(n, 1);
  for (int p = 0; p < options_.passes; p++)
    if (p == 0 || options_.tables) q.dnormed.push_back(arena_.tensor(n, h));
  const auto reuse = arena_.mark();
  Tensor logprob = arena_.tensor(n, 1), mean = arena_.tensor(n, h), draw = arena_.tensor(n, h);
  const float eps = float(model_.config().rms_norm_eps);
  Rows::Group group;
  for (int32_t r = 0; r < int32_t(n); r++) group.rows.push_back(r);
  group.cuts.push_back(int32_t(n));
  if (n > 0) {
    const std::vector<uint8_t> wanted(size_t(n), 1);
    b.gather_rows(q.raw, hidden, q.positions);
    b.rmsnorm(q.normed, q.raw, model_.final_norm(), eps);
    b.head_logprobs_mean(logprob, q.lse, mean, q.normed, model_.head(), q.targets, options_.temperature, wanted);
  }
  for (int p = 0; p < options_.passes; p++) {
    if (n == 0) {
      b.zero(q.dh[size_t(p)]);
      continue;
    }
    std::vector<float> coefficient;
    for (int32_t at : q.positions) coefficient.push_back(q.query.weights[size_t(p * rows + at + 1)]);
    const Tensor& dnormed = q.dnormed[options_.tables ? size_t(p) : 0];
    b.head_mean_backward(dnormed, mean, model_.head(), q.targets, coefficient, options_.temperature);
    b.rmsnorm_backward(draw, nullptr, dnormed, q.raw, model_.final_norm(), eps, group, false);
    b.scatter_rows(q.dh[size_t(p)], draw, q.positions);
  }
  arena_.release(options_.tables ? reuse : whole);
  check_aborted();
  prepared_++;
}

std::vector<AngleMeasure::Part> AngleMeasure::parts(int64_t l, const Prepared&, const Tap& tap,
                                                    const SavedLayer& s) const {
  std::vector<Part> list;
  const std::string prefix = "model.layers." + std::to_string(l) + ".";
  const Layer& layer = model_.layer(l);
  const auto columns = [](std::vector<Tensor> tensors, int64_t begin, int64_t n) {
    for (auto& t : tensors) t = t.col_range(begin, n);
    return tensors;
  };
  for (int g = 0; g < kGroups; g++) {
    const PackedWeight& w = *layer.linear[size_t(g)];
    for (int m = 0; m < w.modules(); m++) {
      const std::string name = prefix + kModuleNames[size_t(g)][size_t(m)];
      const auto dy = columns(tap.dys[size_t(g)], w.column(m), w.n(m));
      if (!options_.adapters) {
        list.push_back({name, -1, {Term{.left = dy, .right = {tap.xs[size_t(g)]}}}});
        if (options_.vectors && model_.has_bias(g))
          list.push_back({name + ".bias", -1, {Term{.left = {tap.ones}, .right = dy}}});
        continue;
      }
      for (size_t a = 0; a < adapters_.size(); a++) {
        if (!adapters_[a]) continue;
        const LoraGroup::Module& pair = adapters_[a]->group(l, g).modules[size_t(m)];
        if (pair.rank == 0) continue;
        Term down{.left = columns(tap.dus[size_t(g)], pair.column, pair.rank),
                  .right = {tap.xs[size_t(g)]},
                  .adapter = int(a)};
        Term up{.left = {s.u[size_t(g)].col_range(pair.column, pair.rank)}, .right = dy, .adapter = int(a)};
        list.push_back({name, int(a), {std::move(down), std::move(up)}});
      }
    }
  }
  const std::array<const char*, 4> norms{"input_layernorm", "post_attention_layernorm", "self_attn.q_norm",
                                         "self_attn.k_norm"};
  const std::array<const Tensor*, 4> weights{&layer.attention_norm, &layer.mlp_norm, &layer.q_norm, &layer.k_norm};
  for (size_t i = 0; i < norms.size() && options_.vectors; i++)
    if (weights[i]->data)
      list.push_back({prefix + norms[i],
                      -1,
                      {Term{.left = tap.norm_dy[i], .right = {tap.norm_x[i]}, .norm = *weights[i], .heads = i >= 2}}});
  return list;
}

std::vector<ModuleGram> AngleMeasure::layer() {
  if (prepared_ < queries_.size()) throw Error("ERR_INVALID_ARGUMENT", "Expected forward() of every query first");
  if (next_ == -1 && options_.tables) {
    next_--;
    return tables();
  }
  if (next_ < 0) return {};
  const int64_t l = next_;
  const Decoder decoder(model_);
  const std::vector<AdapterGradient*> none(adapters_.size(), nullptr);
  collector_->begin();
  for (size_t number = 0; number < queries_.size(); number++) {
    check_aborted();
    Prepared& q = *queries_[number];
    const Batch& batch = q.packed.batch;
    const auto mark = arena_.mark();
    const int64_t rows = int64_t(batch.ids.size());
    KvPages& kv = arena_.kv_pages(1, model_.attention_shape(), q.packed.pages);
    const auto scratch = decoder.backward_scratch(arena_, rows, true);
    SavedLayer s = q.saved.layers[size_t(l)];
    decoder.layer_again(arena_, batch, adapters_, kv, l, s, scratch);
    Tap tap(model_.backend(), arena_, model_.layer(l), options_, rows);
    for (int p = 0; p < options_.passes; p++) {
      tap.begin_pass();
      decoder.layer_backward(
          arena_, q.dh[size_t(p)], batch, adapters_, kv, l, s, scratch,
          {none, nullptr, options_.stop ? std::span<const int8_t>(q.query.roles) : std::span<const int8_t>{}, nullptr,
           &tap});
    }
    const auto list = parts(l, q, tap, s);
    for (size_t i = 0; i < list.size(); i++) collector_->add(i, list[i], q, number, arena_);
    arena_.release(mark);
  }
  auto grams = collector_->take();
  next_--;
  return grams;
}

/// Embedding, head and final norm: the gradients of the embedded ids are complete now.
std::vector<ModuleGram> AngleMeasure::tables() {
  Backend& b = model_.backend();
  const ModelConfig& c = model_.config();
  collector_->begin();
  for (size_t number = 0; number < queries_.size(); number++) {
    check_aborted();
    Prepared& q = *queries_[number];
    const auto mark = arena_.mark();
    const int64_t n = q.normed.rows, rows = int64_t(q.query.ids.size());
    std::vector<Tensor> used;
    std::vector<float> normed(size_t(n * c.hidden_size)), scaled(normed.size());
    b.read(normed.data(), q.normed);
    for (int p = 0; p < options_.passes; p++) {
      used.push_back(arena_.tensor(n, c.hidden_size));
      for (int64_t r = 0; r < n; r++) {
        const float factor =
            q.query.weights[size_t(p * rows + q.positions[size_t(r)] + 1)] / float(options_.temperature);
        for (int64_t h = 0; h < c.hidden_size; h++)
          scaled[size_t(r * c.hidden_size + h)] = factor * normed[size_t(r * c.hidden_size + h)];
      }
      b.write(used.back(), scaled.data());
    }
    Term embedding{.left = {}, .right = {}, .vocabulary = c.vocab_size, .embedded = q.dh}, head = embedding;
    head.embedded.clear();
    head.used = used;
    if (c.tied) embedding.used = used;
    collector_->add(0, {"model.embed_tokens", -1, {embedding}}, q, number, arena_);
    if (!c.tied) collector_->add(1, {"lm_head", -1, {head}}, q, number, arena_);
    Term norm{.left = q.dnormed, .right = {q.raw}, .norm = model_.final_norm(), .targets = true};
    collector_->add(c.tied ? 1 : 2, {"model.norm", -1, {norm}}, q, number, arena_);
    arena_.release(mark);
  }
  return collector_->take();
}

AngleMeasure::Use AngleMeasure::use() const {
  return {arena_.peak_bytes(), arena_.kv_bytes(), collector_->bytes(), collector_->sum_bytes()};
}

}  // namespace rolegrad
