// A step of the generator: which rows it runs, and whose pages they go to.
#include <algorithm>

#include "core/error.h"
#include "model/generator.h"

namespace rolegrad {

namespace {

constexpr int64_t kPage = KvPages::kPage;

int64_t pages_for(int64_t tokens) { return (tokens + kPage - 1) / kPage; }

}  // namespace

/// Whose rows a position's are.
size_t Generator::writer_at(const Sequence& s, int64_t position) const {
  return options_.writer_of_role.empty() ? 0
                                         : size_t(options_.writer_of_role[size_t(s.record.roles[size_t(position)])]);
}

/// False when there was nothing to run.
bool Generator::step(std::vector<Event>& events) {
  {
    std::lock_guard lock(mutex_);
    if (!begin_step(events)) return false;
  }
  try {
    for (size_t w = 0; w < writers_.size(); w++) compute(writers_[w], work_[w]);
  } catch (...) {
    // What was to be computed may not have been.
    std::lock_guard lock(mutex_);
    computing_ = false;
    forget_taken();
    forget_caches();
    throw;
  }
  std::lock_guard lock(mutex_);
  end_step(events);
  return true;
}

bool Generator::begin_step(std::vector<Event>& events) {
  admit();
  const auto running = [](const auto& s) { return s->state == State::running; };
  if (std::none_of(sequences_.begin(), sequences_.end(), running)) return false;
  if (!schedule(events)) return true;
  computing_ = true;
  stats_.steps++;
  for (Work& work : work_) {
    stats_.computed += int64_t(work.ids.size());
    work.sampling.clear(), work.draws.clear();
    for (const Sequence* s : work.ready) {
      work.sampling.push_back(s->request.sampling);
      work.draws.push_back(uniform(s->request.key, s->record.ids.size()));
    }
  }
  return true;
}

void Generator::compute(const Writer& writer, Work& work) {
  work.token.clear();
  if (work.ids.empty()) return;
  const Model& model = *writer.model;
  Backend& b = model.backend();
  Arena& arena = *work.arena;
  arena.reset();
  work.batch.ids = work.ids;
  work.batch.rows = Rows(work.cuts, work.adapter_rows, int(writer.adapters.size()));
  KvPages& kv = *caches_[work.cache]->memory.kv;
  Tensor hidden = Decoder(model).forward(arena, work.batch, writer.adapters, kv, nullptr);
  const int64_t n = int64_t(work.last_rows.size());
  work.token.resize(size_t(n)), work.logprob.resize(size_t(n));
  if (n == 0) return;

  const ModelConfig& c = model.config();
  Tensor last = arena.tensor(n, c.hidden_size), normed = arena.tensor(n, c.hidden_size),
         logits = arena.tensor(n, c.vocab_size);
  b.gather_rows(last, hidden, work.last_rows);
  b.rmsnorm(normed, last, model.final_norm(), float(c.rms_norm_eps));
  b.logits(logits, normed, model.head());
  if (writer.adapters.tokens) writer.adapters.tokens->replace(arena, logits, normed);
  b.sample(work.token, work.logprob, logits, work.sampling, work.draws);
}

void Generator::end_step(std::vector<Event>& events) {
  if (!computing_) return;
  computing_ = false;
  for (PromptTree::Node* node : fresh_) node->ready = int64_t(node->ids.size());
  for (Work& work : work_) {
    stats_.sampled += int64_t(work.ready.size());
    for (size_t i = 0; i < work.ready.size(); i++) sampled(*work.ready[i], work.token[i], work.logprob[i], events);
  }
  forget_taken();
}

/// Puts the rows of a step together; false where there are none.
bool Generator::schedule(std::vector<Event>& events) {
  for (Work& work : work_) {
    work.ids.clear(), work.adapter_rows.clear(), work.last_rows.clear(), work.ready.clear();
    work.cuts.assign(1, 0);
    work.batch.positions.clear(), work.batch.spans.clear();
  }
  fresh_.clear();
  for (size_t c = 0; c < caches_.size(); c++) {
    Cache& cache = *caches_[c];
    if (cache.left) prune(c);
    cache.room = options_.chunk;
    cache.growing = 0;
    cache.oldest = true, cache.full = false;
  }
  for (const auto& each : sequences_) {
    Sequence& s = *each;
    if (s.state != State::running) continue;
    // A tool's output can bring a sequence to its limit, and a call can be the last token that it may sample.
    if (s.length() >= options_.max_length || s.sampled >= s.request.max_new_tokens)
      end(s, EventKind::length, events);
    else
      schedule(s, turn(s));
  }
  return std::any_of(work_.begin(), work_.end(), [](const Work& work) { return !work.ids.empty(); });
}

/// The rows of one sequence, in the cache of whose turn it is.
void Generator::schedule(Sequence& s, size_t c) {
  Cache& cache = *caches_[c];
  Held& held = s.held[c];
  const int64_t length = s.length();
  const bool first = cache.oldest;
  cache.oldest = false;
  if (held.pages.empty()) {
    if (cache.full || cache.room == 0) return;
    PromptTree::Match match = cache.tree.find(std::span(s.record.ids).first(size_t(std::min(s.prompt, length - 1))));
    // Worth a step's wait: a page, or half of what is missing.
    const int64_t missing = length - match.tokens();
    if (match.coming > 0 && (match.coming >= kPage || 2 * match.coming >= missing)) return;
    if (!start(s, c, match, first)) {
      cache.full = true;  // nobody who came later goes before it
      return;
    }
  }
  cache.growing += int64_t(held.pages.size()) < pages_for(options_.max_length) ? 1 : 0;
  const int64_t pending = length - held.cached;
  int64_t n = pending == 1 ? 1 : std::min(pending, cache.room);
  if (n == 0) return;
  while (int64_t(held.pages.size()) < pages_for(held.cached + n) && take_page(s, c, false)) {
  }
  n = std::min(n, int64_t(held.pages.size()) * kPage - held.cached);
  if (n <= 0) return;  // until older sequences end
  size_t w = writer_at(s, length - 1);
  if (options_.shared_cache) {
    // Rows of one writer at a time: those of the next read what these write.
    w = writer_at(s, held.cached);
    int64_t own = 1;
    while (own < n && writer_at(s, held.cached + own) == w) own++;
    n = own;
  }
  if (pending > 1) cache.room -= n;
  Work& work = work_[w];
  const std::vector<int32_t>& routes = writers_[w].adapter_of_role;
  const std::vector<int8_t>& labels = options_.shuffle_routes ? s.record.routing : s.record.roles;
  work.batch.spans.push_back({int64_t(work.ids.size()), n, held.cached, held.pages});
  for (int64_t t = held.cached; t < held.cached + n; t++) {
    work.ids.push_back(s.record.ids[size_t(t)]);
    work.batch.positions.push_back(int32_t(t));
    work.adapter_rows.push_back(routes[size_t(labels[size_t(t)])]);
  }
  index_prompt(s, c, held.cached, std::min(held.cached + n, s.prompt));
  stats_.recomputed += std::clamp<int64_t>(held.computed - held.cached, 0, n);
  held.cached += n;
  held.computed = std::max(held.computed, held.cached);
  work.cuts.push_back(int32_t(work.ids.size()));
  if (held.cached == length) {
    work.ready.push_back(&s);
    work.last_rows.push_back(int32_t(work.ids.size()) - 1);
  }
}

/// Takes the pages of all of the sequence's tokens: those that it shares, and the rest from what is free or can be had.
bool Generator::start(Sequence& s, size_t c, const PromptTree::Match& match, bool oldest) {
  Cache& cache = *caches_[c];
  Held& held = s.held[c];
  const int64_t whole = int64_t(match.whole.size()), own = pages_for(s.length()) - whole;
  for (PromptTree::Node* node : match.whole) cache.tree.use(*node);
  PromptTree::Node* part = match.part;
  if (part) cache.tree.use(*part);
  // One page more for each that may grow: it should not lose its pages again within the next few steps.
  const bool fits = oldest || available(s, c) >= own + cache.growing;
  if (fits) {
    for (PromptTree::Node* node : match.whole) {
      cache.pool.hold(node->page);
      held.pages.push_back(node->page);
    }
    held.nodes = match.whole;
    held.indexed = true;
    held.cached = whole * kPage;
    cache.left = true;
    if (part && take_page(s, c, !oldest)) {
      writers_.front().model->backend().kv_copy_page(*cache.memory.kv, held.pages.back(), part->page);
      held.cached += match.part_tokens;
    }
    if (held.computed == 0) stats_.shared += held.cached;
    held.computed = std::max(held.computed, held.cached);
  } else {
    for (PromptTree::Node* node : match.whole) cache.tree.leave(*node);
  }
  if (part) cache.tree.leave(*part);
  if (!fits) return false;
  while (int64_t(held.pages.size()) < pages_for(s.length()) && take_page(s, c, !oldest)) {
  }
  return true;
}

/// One page more; false when there is none to be had.
bool Generator::take_page(Sequence& s, size_t c, bool starting) {
  while (caches_[c]->pool.free() == 0)
    if (!reclaim(s, c, starting)) return false;
  s.held[c].pages.push_back(caches_[c]->pool.take());
  return true;
}

/// Makes someone give up pages for `s`; false when there is nobody. An older one that writes with another cache now
/// keeps its pages here: it will be back soon, and the oldest of all always goes on.
bool Generator::reclaim(const Sequence& s, size_t c, bool starting) {
  Sequence *waiting = nullptr, *younger = nullptr;
  for (const auto& other : sequences_) {
    if (other.get() == &s || other->held[c].pages.empty()) continue;
    if (other->state == State::waiting) waiting = other.get();
    if (other->state == State::running && other->id > s.id) younger = other.get();
  }
  // Who starts leaves those alone that wait: they are older, and would take the pages back when their tool answers.
  if (waiting && !starting)
    preempt(*waiting, c);
  else if (younger)
    preempt(*younger, c);
  else if (caches_[c]->tree.idle() > 0)
    caches_[c]->tree.evict();
  else
    return false;
  return true;
}

/// Pages that a start of `s` can have, at least.
int64_t Generator::available(const Sequence& s, size_t c) const {
  const Cache& cache = *caches_[c];
  int64_t n = cache.pool.free() + cache.tree.idle();
  for (const auto& other : sequences_) {
    if (other->state != State::running || other->id <= s.id) continue;
    const auto& pages = other->held[c].pages;
    n += std::count_if(pages.begin(), pages.end(), [&](int32_t p) { return cache.pool.holders(p) == 1; });
  }
  return n;
}

/// Positions [begin, end) of the prompt are in this step: the pages that they go to can be shared from the next one on.
void Generator::index_prompt(Sequence& s, size_t c, int64_t begin, int64_t end) {
  Held& held = s.held[c];
  while (held.indexed && begin < end) {
    const size_t p = size_t(begin / kPage);
    const int64_t first = int64_t(p) * kPage, to = std::min(end, first + kPage);
    auto ids = std::span(s.record.ids).subspan(size_t(first), size_t(to - first));
    if (p < held.nodes.size()) {  // a page that this sequence has begun in a step before
      held.nodes[p]->ids.assign(ids.begin(), ids.end());
    } else if (PromptTree::Node* node = caches_[c]->tree.add(p > 0 ? held.nodes[p - 1] : nullptr, held.pages[p], ids)) {
      node->ready = begin - first;
      held.nodes.push_back(node);
    } else {
      held.indexed = false;
      return;
    }
    fresh_.push_back(held.nodes[p]);
    begin = to;
  }
}

/// Gives its pages back; what they held is computed again if it goes on.
void Generator::release(Sequence& s, size_t c) {
  Cache& cache = *caches_[c];
  Held& held = s.held[c];
  for (PromptTree::Node* node : held.nodes) cache.tree.leave(*node);
  for (int32_t page : held.pages) cache.pool.drop(page);
  cache.left |= !held.nodes.empty();
  held.nodes.clear();
  held.pages.clear();
  held.cached = 0;
}

void Generator::release(Sequence& s) {
  for (size_t c = 0; c < caches_.size(); c++) release(s, c);
}

void Generator::preempt(Sequence& s, size_t c) {
  release(s, c);
  stats_.preemptions++;
}

/// Prompts that nobody runs stay for those that are to start, or to start again.
void Generator::prune(size_t c) {
  Cache& cache = *caches_[c];
  cache.left = false;
  if (cache.tree.idle() == 0) return;
  std::vector<std::span<const int32_t>> starts;
  for (const auto& s : sequences_)
    if (s->held[c].pages.empty() && s->state != State::ended)
      starts.push_back(std::span(s->record.ids).first(size_t(s->prompt)));
  cache.tree.prune(starts);
}

void Generator::prune() {
  for (size_t c = 0; c < caches_.size(); c++) prune(c);
}

void Generator::forget_caches() {
  for (const auto& s : sequences_) release(*s);
  for (const auto& cache : caches_) cache->tree.prune({});
}

}  // namespace rolegrad
