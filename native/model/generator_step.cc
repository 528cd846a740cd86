// A step of the generator: which rows it runs, and whose pages they go to.
#include <algorithm>

#include "core/error.h"
#include "model/generator.h"

namespace rolegrad {

namespace {

constexpr int64_t kPage = KvPages::kPage;

int64_t pages_for(int64_t tokens) { return (tokens + kPage - 1) / kPage; }

}  // namespace

/// False when there was nothing to run.
bool Generator::step(std::vector<Event>& events) {
  {
    std::lock_guard lock(mutex_);
    if (!begin_step(events)) return false;
  }
  try {
    compute_step();
  } catch (...) {
    // What was to be computed may not have been.
    std::lock_guard lock(mutex_);
    computing_ = false;
    forget_taken();
    forget_cache();
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
  memory_.arena->reset();
  if (schedule(events) == 0) return true;
  computing_ = true;
  stats_.steps++;
  stats_.computed += int64_t(ids_.size());
  sampling_.clear(), draws_.clear();
  for (const Sequence* s : ready_) {
    sampling_.push_back(s->request.sampling);
    draws_.push_back(uniform(s->request.key, s->record.ids.size()));
  }
  return true;
}

void Generator::compute_step() {
  if (ids_.empty()) return;
  Backend& b = model_.backend();
  Arena& arena = *memory_.arena;
  batch_.ids = ids_;
  batch_.rows = Rows(cuts_, adapter_rows_, int(adapters_.size()));
  Tensor hidden = Decoder(model_).forward(arena, batch_, adapters_, *memory_.kv, nullptr);
  const int64_t n = int64_t(last_rows_.size());
  token_.resize(size_t(n)), logprob_.resize(size_t(n));
  if (n == 0) return;

  const ModelConfig& c = model_.config();
  Tensor last = arena.tensor(n, c.hidden_size), normed = arena.tensor(n, c.hidden_size),
         logits = arena.tensor(n, c.vocab_size);
  b.gather_rows(last, hidden, last_rows_);
  b.rmsnorm(normed, last, model_.final_norm(), float(c.rms_norm_eps));
  b.logits(logits, normed, model_.head());
  if (adapters_.tokens) adapters_.tokens->replace(arena, logits, normed);
  b.sample(token_, logprob_, logits, sampling_, draws_);
}

void Generator::end_step(std::vector<Event>& events) {
  if (ids_.empty()) return;
  computing_ = false;
  for (PromptTree::Node* node : fresh_) node->ready = int64_t(node->ids.size());
  stats_.sampled += int64_t(ready_.size());
  for (size_t i = 0; i < ready_.size(); i++) sampled(*ready_[i], token_[i], logprob_[i], events);
  forget_taken();
}

/// Puts the rows of a step together; returns how many.
int64_t Generator::schedule(std::vector<Event>& events) {
  ids_.clear(), adapter_rows_.clear(), last_rows_.clear(), ready_.clear(), fresh_.clear();
  cuts_.assign(1, 0);
  batch_.positions.clear(), batch_.spans.clear();
  if (left_) prune();
  int64_t room = options_.chunk;
  int64_t growing = 0;  // older sequences that hold pages and may need more
  bool oldest = true, full = false;
  for (const auto& each : sequences_) {
    Sequence& s = *each;
    if (s.state != State::running) continue;
    const int64_t length = s.length();
    // A tool's output can bring a sequence to its limit, and a call can be the last token that it may sample.
    if (length >= options_.max_length || s.sampled >= s.request.max_new_tokens) {
      end(s, EventKind::length, events);
      continue;
    }
    const bool first = oldest;
    oldest = false;
    if (s.pages.empty()) {
      if (full || room == 0) continue;
      PromptTree::Match match = tree_.find(std::span(s.record.ids).first(size_t(std::min(s.prompt, length - 1))));
      // Worth a step's wait: a page, or half of what is missing.
      const int64_t missing = length - match.tokens();
      if (match.coming > 0 && (match.coming >= kPage || 2 * match.coming >= missing)) continue;
      if (!start(s, match, first, growing)) {
        full = true;  // nobody who came later goes before it
        continue;
      }
    }
    growing += int64_t(s.pages.size()) < pages_for(options_.max_length) ? 1 : 0;
    const int64_t pending = length - s.cached;
    int64_t n = pending == 1 ? 1 : std::min(pending, room);
    if (n == 0) continue;
    while (int64_t(s.pages.size()) < pages_for(s.cached + n) && take_page(s, false)) {
    }
    n = std::min(n, int64_t(s.pages.size()) * kPage - s.cached);
    if (n <= 0) continue;  // until older sequences end
    if (pending > 1) room -= n;
    batch_.spans.push_back({int64_t(ids_.size()), n, s.cached, s.pages});
    for (int64_t t = s.cached; t < s.cached + n; t++) {
      ids_.push_back(s.record.ids[size_t(t)]);
      batch_.positions.push_back(int32_t(t));
      adapter_rows_.push_back(options_.adapter_of_role[size_t(s.record.roles[size_t(t)])]);
    }
    index_prompt(s, s.cached, std::min(s.cached + n, s.prompt));
    stats_.recomputed += std::clamp<int64_t>(s.computed - s.cached, 0, n);
    s.cached += n;
    s.computed = std::max(s.computed, s.cached);
    cuts_.push_back(int32_t(ids_.size()));
    if (s.cached == length) {
      ready_.push_back(&s);
      last_rows_.push_back(int32_t(ids_.size()) - 1);
    }
  }
  return int64_t(ids_.size());
}

/// Takes the pages of all of the sequence's tokens: those that it shares, and the rest from what is free or can be had.
bool Generator::start(Sequence& s, const PromptTree::Match& match, bool oldest, int64_t growing) {
  const int64_t whole = int64_t(match.whole.size()), own = pages_for(s.length()) - whole;
  for (PromptTree::Node* node : match.whole) tree_.use(*node);
  PromptTree::Node* part = match.part;
  if (part) tree_.use(*part);
  // One page more for each that may grow: it should not lose its pages again within the next few steps.
  const bool fits = oldest || available(s) >= own + growing;
  if (fits) {
    for (PromptTree::Node* node : match.whole) {
      pool_.hold(node->page);
      s.pages.push_back(node->page);
    }
    s.nodes = match.whole;
    s.indexed = true;
    s.cached = whole * kPage;
    left_ = true;
    if (part && take_page(s, !oldest)) {
      model_.backend().kv_copy_page(*memory_.kv, s.pages.back(), part->page);
      s.cached += match.part_tokens;
    }
    if (s.computed == 0) stats_.shared += s.cached;
    s.computed = std::max(s.computed, s.cached);
  } else {
    for (PromptTree::Node* node : match.whole) tree_.leave(*node);
  }
  if (part) tree_.leave(*part);
  if (!fits) return false;
  while (int64_t(s.pages.size()) < pages_for(s.length()) && take_page(s, !oldest)) {
  }
  return true;
}

/// One page more; false when there is none to be had.
bool Generator::take_page(Sequence& s, bool starting) {
  while (pool_.free() == 0)
    if (!reclaim(s, starting)) return false;
  s.pages.push_back(pool_.take());
  return true;
}

/// Makes someone give up pages for `s`; false when there is nobody.
bool Generator::reclaim(const Sequence& s, bool starting) {
  Sequence *waiting = nullptr, *younger = nullptr;
  for (const auto& other : sequences_) {
    if (other.get() == &s || other->pages.empty()) continue;
    if (other->state == State::waiting) waiting = other.get();
    if (other->state == State::running && other->id > s.id) younger = other.get();
  }
  // Who starts leaves those alone that wait: they are older, and would take the pages back when their tool answers.
  if (waiting && !starting)
    preempt(*waiting);
  else if (younger)
    preempt(*younger);
  else if (tree_.idle() > 0)
    tree_.evict();
  else
    return false;
  return true;
}

/// Pages that a start of `s` can have, at least.
int64_t Generator::available(const Sequence& s) const {
  int64_t n = pool_.free() + tree_.idle();
  for (const auto& other : sequences_)
    if (other->state == State::running && other->id > s.id)
      n += std::count_if(other->pages.begin(), other->pages.end(), [&](int32_t p) { return pool_.holders(p) == 1; });
  return n;
}

/// Positions [begin, end) of the prompt are in this step: the pages that they go to can be shared from the next one on.
void Generator::index_prompt(Sequence& s, int64_t begin, int64_t end) {
  while (s.indexed && begin < end) {
    const size_t p = size_t(begin / kPage);
    const int64_t first = int64_t(p) * kPage, to = std::min(end, first + kPage);
    auto ids = std::span(s.record.ids).subspan(size_t(first), size_t(to - first));
    if (p < s.nodes.size()) {  // a page that this sequence has begun in a step before
      s.nodes[p]->ids.assign(ids.begin(), ids.end());
    } else if (PromptTree::Node* node = tree_.add(p > 0 ? s.nodes[p - 1] : nullptr, s.pages[p], ids)) {
      node->ready = begin - first;
      s.nodes.push_back(node);
    } else {
      s.indexed = false;
      return;
    }
    fresh_.push_back(s.nodes[p]);
    begin = to;
  }
}

/// Gives its pages back; what they held is computed again if it goes on.
void Generator::release(Sequence& s) {
  for (PromptTree::Node* node : s.nodes) tree_.leave(*node);
  for (int32_t page : s.pages) pool_.drop(page);
  left_ |= !s.nodes.empty();
  s.nodes.clear();
  s.pages.clear();
  s.cached = 0;
}

void Generator::preempt(Sequence& s) {
  release(s);
  stats_.preemptions++;
}

/// Prompts that nobody runs stay for those that are to start, or to start again.
void Generator::prune() {
  left_ = false;
  if (tree_.idle() == 0) return;
  std::vector<std::span<const int32_t>> starts;
  for (const auto& s : sequences_)
    if (s->pages.empty() && s->state != State::ended)
      starts.push_back(std::span(s->record.ids).first(size_t(s->prompt)));
  tree_.prune(starts);
}

void Generator::forget_cache() {
  for (const auto& s : sequences_) release(*s);
  tree_.prune({});
}

}  // namespace rolegrad
