#include "model/generator.h"

#include <algorithm>

#include "core/error.h"

namespace rolegrad {

namespace {

int64_t pages_for(int64_t tokens) { return (tokens + KvPages::kPage - 1) / KvPages::kPage; }

}  // namespace

Generator::Generator(const Model& model, AdapterList adapters, Options options)
    : model_(model), adapters_(std::move(adapters)), options_(std::move(options)), arena_(model.backend()) {
  int64_t pages = options_.max_sequences * pages_for(options_.max_length);
  kv_ = model.backend().kv_pages(int(model.config().layers), model.attention_shape(), pages);
  for (int64_t p = pages - 1; p >= 0; p--) free_pages_.push_back(int32_t(p));
}

int64_t Generator::add(Request request) {
  if (request.ids.empty()) throw Error("ERR_EMPTY_PROMPT", "Expected a prompt of at least one token");
  if (int64_t(request.ids.size()) >= options_.max_length)
    throw Error("ERR_PROMPT_TOO_LONG", "Expected a prompt shorter than maxLength " +
                                           std::to_string(options_.max_length) + " but received " +
                                           std::to_string(request.ids.size()) + " tokens");
  for (int32_t id : request.ids)
    if (id < 0 || id >= model_.config().vocab_size)
      throw Error("ERR_TOKEN_RANGE", "Expected token ids below " + std::to_string(model_.config().vocab_size) +
                                         " but received " + std::to_string(id));
  Sequence s{{}, std::move(request), RoleRouter(options_.router), {}, 0, 0, false};
  s.record.ids = s.request.ids;
  s.record.roles.assign(s.record.ids.size(), options_.router.base);
  s.record.sampled.assign(s.record.ids.size(), 0);
  s.record.logprobs.assign(s.record.ids.size(), 0);
  sequences_.emplace(next_, std::move(s));
  return next_++;
}

void Generator::append(int64_t id, std::span<const int32_t> ids) {
  auto it = sequences_.find(id);
  if (it == sequences_.end())
    throw Error("ERR_NO_SEQUENCE", "Expected a live sequence but received " + std::to_string(id));
  Sequence& s = it->second;
  for (int32_t token : ids) {
    if (token < 0 || token >= model_.config().vocab_size)
      throw Error("ERR_TOKEN_RANGE", "Expected token ids below " + std::to_string(model_.config().vocab_size) +
                                         " but received " + std::to_string(token));
    if (int64_t(s.record.ids.size()) >= options_.max_length) continue;  // cut: the sequence ends here
    s.record.ids.push_back(token);
    s.record.roles.push_back(s.router.given());
    s.record.sampled.push_back(0);
    s.record.logprobs.push_back(0);
  }
  s.waiting = false;
}

bool Generator::start(Sequence& s) {
  if (!s.pages.empty()) return true;
  int64_t need = pages_for(options_.max_length);
  if (int64_t(free_pages_.size()) < need) return false;
  for (int64_t i = 0; i < need; i++) {
    s.pages.push_back(free_pages_.back());
    free_pages_.pop_back();
  }
  return true;
}

int64_t Generator::runnable() const {
  int64_t n = 0;
  for (const auto& [id, s] : sequences_) n += s.waiting ? 0 : 1;
  return n;
}

void Generator::step(std::vector<Event>& events) {
  Backend& b = model_.backend();
  arena_.reset();
  std::vector<int32_t> ids, adapter, last_rows, cu{0};
  Batch batch;
  std::vector<int64_t> ready;  // sequences whose last token is in this step
  int64_t room = options_.chunk;
  for (auto& [id, s] : sequences_) {
    if (s.waiting || !start(s)) continue;
    int64_t length = int64_t(s.record.ids.size());
    // A tool's output can bring a sequence to its limit, and a call can be the last token that it may sample.
    if (length >= options_.max_length || s.sampled >= s.request.max_new_tokens) {
      s.waiting = true;
      events.push_back({id, EventKind::length, -1, ""});
      continue;
    }
    int64_t pending = length - s.cached;
    int64_t n = pending == 1 ? 1 : std::min(pending, room);
    if (n == 0) continue;
    if (pending > 1) room -= n;
    batch.spans.push_back({int64_t(ids.size()), n, s.cached, s.pages});
    for (int64_t t = s.cached; t < s.cached + n; t++) {
      ids.push_back(s.record.ids[size_t(t)]);
      batch.positions.push_back(int32_t(t));
      adapter.push_back(options_.adapter_of_role[size_t(s.record.roles[size_t(t)])]);
    }
    s.cached += n;
    cu.push_back(int32_t(ids.size()));
    if (s.cached == length) {
      ready.push_back(id);
      last_rows.push_back(int32_t(ids.size()) - 1);
    }
  }
  if (ids.empty()) return;
  batch.ids = ids;
  batch.rows = Rows(std::move(cu), std::move(adapter), int(adapters_.size()));
  Tensor hidden = Decoder(model_).forward(arena_, batch, adapters_, *kv_, nullptr);
  if (ready.empty()) return;

  int64_t n = int64_t(ready.size());
  const ModelConfig& c = model_.config();
  Tensor last = arena_.tensor(n, c.hidden_size), normed = arena_.tensor(n, c.hidden_size),
         logits = arena_.tensor(n, c.vocab_size);
  b.gather_rows(last, hidden, last_rows);
  b.rmsnorm(normed, last, model_.final_norm(), float(c.rms_norm_eps));
  b.logits(logits, normed, model_.head());
  if (adapters_.tokens) adapters_.tokens->replace(arena_, logits, normed);
  std::vector<int32_t> token(ready.size());
  std::vector<float> logprob(ready.size());
  std::vector<SamplingOptions> sampling;
  std::vector<double> draws;
  for (int64_t id : ready) {
    const Sequence& s = sequences_.at(id);
    sampling.push_back(s.request.sampling);
    draws.push_back(uniform(s.request.key, s.record.ids.size()));
  }
  b.sample(token, logprob, logits, sampling, draws);

  for (size_t i = 0; i < ready.size(); i++) {
    Sequence& s = sequences_.at(ready[i]);
    std::vector<RoleRouter::Call> calls;
    // A vocabulary larger than the tokenizer (as Qwen's) has entries without bytes.
    std::span<const uint8_t> bytes;
    if (size_t(token[i]) < options_.token_bytes.size()) bytes = options_.token_bytes[size_t(token[i])];
    s.record.ids.push_back(token[i]);
    s.record.roles.push_back(s.router.sampled(bytes, &calls));
    s.record.sampled.push_back(1);
    s.record.logprobs.push_back(logprob[i]);
    s.sampled++;
    const auto& stops = s.request.stop_ids;
    if (std::find(stops.begin(), stops.end(), token[i]) != stops.end()) {
      events.push_back({ready[i], EventKind::stop, -1, ""});
    } else if (!calls.empty()) {
      // A token that completes several calls: the last one stands (one tool call a turn).
      events.push_back({ready[i], EventKind::call, calls.back().span, calls.back().text});
    } else if (s.sampled >= s.request.max_new_tokens || int64_t(s.record.ids.size()) >= options_.max_length) {
      events.push_back({ready[i], EventKind::length, -1, ""});
    } else {
      continue;
    }
    s.waiting = true;
  }
}

std::vector<Generator::Event> Generator::run(int64_t steps, const std::atomic<bool>& interrupt) {
  std::vector<Event> events;
  for (int64_t i = 0; i < steps && events.empty() && !interrupt.load(); i++) {
    if (runnable() == 0) break;
    step(events);
  }
  return events;
}

Generator::Result Generator::take(int64_t id) {
  auto it = sequences_.find(id);
  if (it == sequences_.end())
    throw Error("ERR_NO_SEQUENCE", "Expected a live sequence but received " + std::to_string(id));
  Result result = std::move(it->second.record);
  free_pages_.insert(free_pages_.end(), it->second.pages.rbegin(), it->second.pages.rend());
  sequences_.erase(it);
  return result;
}

}  // namespace rolegrad
