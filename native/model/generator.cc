#include "model/generator.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace rolegrad {

namespace {

int64_t pages_for(int64_t tokens) { return (tokens + KvPages::kPage - 1) / KvPages::kPage; }

/// Pages of the cache that the options ask for.
int64_t page_count(const Generator::Options& o) {
  // All at their longest, and a prompt that is kept for samples which have not begun.
  const int64_t most = (o.max_sequences + 1) * pages_for(o.max_length);
  if (o.cache_tokens == 0) return most;
  if (o.cache_tokens < o.max_length)
    throw Error("ERR_CACHE_TOO_SMALL", "Expected cacheTokens of at least maxLength " + std::to_string(o.max_length) +
                                           ", as one sequence may grow so long, but received " +
                                           std::to_string(o.cache_tokens));
  return std::min(pages_for(o.cache_tokens), most);
}

/// `role` under the permutation of the pair of runs that run `run` is in.
int8_t shuffled_role(int8_t role, size_t roles, const RngKey& key, int64_t run) {
  constexpr uint64_t kBehindPositions = uint64_t(1) << 40;  // counters below are those of tokens
  std::vector<int8_t> label(roles);
  for (size_t i = 0; i < roles; i++) label[i] = int8_t(i);
  for (size_t i = roles - 1; i > 0; i--) {
    const double draw = uniform(key, kBehindPositions + uint64_t(run / 2) * 128 + i);
    std::swap(label[i], label[size_t(draw * double(i + 1))]);
  }
  return label[size_t(role)];
}

}  // namespace

DecodeMemory IdleDecodeMemory::take(const Model& model, int64_t pages) {
  DecodeMemory memory;
  {
    std::lock_guard lock(mutex_);
    memory = std::move(idle_);
  }
  if (!memory.kv || memory.kv->pages() < pages) {
    memory.kv.reset();  // before there are two
    memory.kv = model.backend().kv_pages(int(model.config().layers), model.attention_shape(), pages);
    memory.touched = 0;
  }
  if (!memory.arena) memory.arena = std::make_unique<Arena>(model.backend());
  return memory;
}

void IdleDecodeMemory::give(DecodeMemory memory) {
  if (size_t(memory.touched) * (memory.kv->bytes() / size_t(memory.kv->pages())) > kMost) return;
  std::lock_guard lock(mutex_);
  if (!idle_.kv || idle_.kv->pages() < memory.kv->pages()) std::swap(idle_, memory);
}

Generator::Generator(const Model& model, AdapterList adapters, Options options, IdleDecodeMemory* idle)
    : Generator({Writer{&model, std::move(adapters), options.adapter_of_role, idle}}, options) {}

Generator::Generator(std::vector<Writer> writers, Options options)
    : options_(std::move(options)), writers_(std::move(writers)), work_(writers_.size()) {
  const ModelConfig& first = writers_.front().model->config();
  for (size_t w = 0; w < writers_.size(); w++) {
    const Model& model = *writers_[w].model;
    const ModelConfig& own = model.config();
    if (own.vocab_size != first.vocab_size)
      throw Error("ERR_WRITERS", "Expected writers of one vocabulary but received " + std::to_string(first.vocab_size) +
                                     " and " + std::to_string(own.vocab_size) + " tokens");
    // Pages are of one backend's own type, and the first writer's copies those of all.
    const std::string device = writers_.front().model->backend().name(), other = model.backend().name();
    if (other != device)
      throw Error("ERR_WRITERS", "Expected writers on one device but received " + device + " and " + other);
    // Each model has a stream of its own there, and nothing orders one's pages before the other's reads.
    if (device.starts_with("cuda") && &model.backend() != &writers_.front().model->backend())
      throw Error("ERR_WRITERS", "Expected writers of one model on device " + device + " but received several models");
    if (w == 0 || !options_.shared_cache) {
      const int64_t pages = page_count(options_);
      IdleDecodeMemory* idle = writers_[w].idle;
      DecodeMemory memory = idle ? idle->take(model, pages) : IdleDecodeMemory().take(model, pages);
      work_[w].cache = caches_.size();
      work_[w].arena = memory.arena.get();
      caches_.push_back(std::make_unique<Cache>(std::move(memory), idle, pages));
    } else {
      if (own.layers != first.layers || own.heads != first.heads || own.kv_heads != first.kv_heads ||
          own.head_dim != first.head_dim)
        throw Error("ERR_WRITERS",
                    "Expected writers of one number of layers, heads, key heads and one head size, as they share keys "
                    "and values");
      work_[w].own_arena = std::make_unique<Arena>(model.backend());
      work_[w].arena = work_[w].own_arena.get();
    }
  }
}

Generator::~Generator() {
  for (const auto& cache : caches_) {
    cache->memory.touched = std::max(cache->memory.touched, cache->pool.peak());
    if (cache->idle) cache->idle->give(std::move(cache->memory));
  }
}

void Generator::check_tokens(std::span<const int32_t> ids) const {
  const int64_t vocabulary = writers_.front().model->config().vocab_size;
  for (int32_t id : ids)
    if (id < 0 || id >= vocabulary)
      throw Error("ERR_TOKEN_RANGE",
                  "Expected token ids below " + std::to_string(vocabulary) + " but received " + std::to_string(id));
}

int64_t Generator::add(Request request) {
  if (request.ids.empty()) throw Error("ERR_EMPTY_PROMPT", "Expected a prompt of at least one token");
  if (int64_t(request.ids.size()) >= options_.max_length)
    throw Error("ERR_PROMPT_TOO_LONG", "Expected a prompt shorter than maxLength " +
                                           std::to_string(options_.max_length) + " but received " +
                                           std::to_string(request.ids.size()) + " tokens");
  check_tokens(request.ids);
  auto s = std::make_unique<Sequence>(Sequence{.id = -1,
                                               .record = {},
                                               .request = std::move(request),
                                               .router = RoleRouter(options_.router),
                                               .held = std::vector<Held>(caches_.size())});
  std::lock_guard lock(mutex_);
  s->id = next_;
  s->prompt = int64_t(s->request.ids.size());
  s->record.ids = std::move(s->request.ids);
  s->record.roles.assign(size_t(s->prompt), options_.router.base);
  s->record.sampled.assign(size_t(s->prompt), 0);
  s->record.logprobs.assign(size_t(s->prompt), 0);
  if (options_.shuffle_routes) s->record.routing = s->record.roles;
  sequences_.push_back(std::move(s));
  admit();
  return next_++;
}

void Generator::append(int64_t id, std::span<const int32_t> ids) {
  std::lock_guard lock(mutex_);
  Sequence& s = find(id);
  check_idle(s);
  check_tokens(ids);
  for (int32_t token : ids) {
    if (s.length() >= options_.max_length) break;  // cut: the sequence ends here
    record(s, token, s.router.given(), false, 0);
  }
  if (s.state == State::waiting) s.state = State::running;
}

/// Who runs is in the hands of a step that computes.
void Generator::check_idle(const Sequence& s) const {
  if (computing_ && s.state == State::running)
    throw Error("ERR_BUSY",
                "Expected a sequence that waits or has ended but a step has sequence " + std::to_string(s.id));
}

Generator::Sequences::iterator Generator::position(int64_t id) {
  return std::lower_bound(sequences_.begin(), sequences_.end(), id,
                          [](const auto& s, int64_t number) { return s->id < number; });
}

Generator::Sequence& Generator::find(int64_t id) {
  auto at = position(id);
  if (at == sequences_.end() || (*at)->id != id)
    throw Error("ERR_NO_SEQUENCE", "Expected a live sequence but received " + std::to_string(id));
  return **at;
}

void Generator::admit() {
  for (auto it = sequences_.begin(); it != sequences_.end() && admitted_ < options_.max_sequences; ++it)
    if ((*it)->state == State::queued) (*it)->state = State::running, admitted_++;
}

int64_t Generator::runnable() const {
  std::lock_guard lock(mutex_);
  return std::count_if(sequences_.begin(), sequences_.end(), [](const auto& s) { return s->state == State::running; });
}

void Generator::record(Sequence& s, int32_t token, int8_t role, bool was_sampled, float logprob) {
  const bool turn = s.length() == s.prompt || role != s.record.roles.back();
  s.record.ids.push_back(token);
  s.record.roles.push_back(role);
  s.record.sampled.push_back(was_sampled ? 1 : 0);
  s.record.logprobs.push_back(logprob);
  if (!options_.shuffle_routes) return;
  s.runs += turn ? 1 : 0;
  s.record.routing.push_back(shuffled_role(role, writers_.front().adapter_of_role.size(), s.request.key, s.runs - 1));
}

void Generator::end(Sequence& s, EventKind kind, std::vector<Event>& events) {
  events.push_back({.id = s.id, .kind = kind});
  release(s);
  s.state = State::ended;
  admitted_--;
}

void Generator::sampled(Sequence& s, int32_t token, float logprob, std::vector<Event>& events) {
  std::vector<RoleRouter::Call> calls;
  // A vocabulary larger than the tokenizer (as Qwen's) has entries without bytes.
  std::span<const uint8_t> bytes;
  if (size_t(token) < options_.token_bytes.size()) bytes = options_.token_bytes[size_t(token)];
  if (options_.tell_tokens)
    events.push_back(
        {.id = s.id, .kind = EventKind::token, .token = token, .role = s.record.roles.back(), .logprob = logprob});
  record(s, token, s.router.sampled(bytes, &calls), true, logprob);
  s.sampled++;
  const auto& stops = s.request.stop_ids;
  if (!calls.empty()) {
    // A token that completes several calls: the last one stands (one tool call a turn). Where it is a stop id too, it
    // ends the turn that makes the call, as Llama's <|eot_id|> does.
    events.push_back({.id = s.id, .kind = EventKind::call, .span = calls.back().span, .text = calls.back().text});
    s.state = State::waiting;
  } else if (std::find(stops.begin(), stops.end(), token) != stops.end()) {
    end(s, EventKind::stop, events);
  } else if (s.sampled >= s.request.max_new_tokens || s.length() >= options_.max_length) {
    end(s, EventKind::length, events);
  }
}

std::vector<Generator::Event> Generator::run(int64_t steps, const std::atomic<bool>& interrupt,
                                             const std::function<void(std::vector<Event>)>& tell) {
  std::vector<Event> events;
  for (int64_t i = 0; i < steps && events.empty() && !interrupt.load(); i++) {
    const bool more = step(events);
    if (tell && !events.empty()) tell(std::exchange(events, {}));
    if (!more) break;
  }
  return events;
}

Generator::Result Generator::take(int64_t id) {
  std::lock_guard lock(mutex_);
  const auto at = position(id);
  Sequence& s = find(id);
  check_idle(s);
  Result result = std::move(s.record);
  if (s.state == State::running || s.state == State::waiting) admitted_--;
  taken_.push_back(std::move(*at));
  sequences_.erase(at);
  if (!computing_) forget_taken();
  admit();
  return result;
}

/// Their pages are free, and prompts that they were the last to want.
void Generator::forget_taken() {
  if (taken_.empty()) return;
  for (const auto& s : taken_) release(*s);
  taken_.clear();
  prune();
}

Generator::Stats Generator::stats() const {
  std::lock_guard lock(mutex_);
  Stats out = stats_;
  for (const auto& cache : caches_) out.peak_pages += cache->pool.peak();
  return out;
}

}  // namespace rolegrad
