#include "model/prompt_tree.h"

#include <algorithm>

namespace rolegrad {

namespace {

int64_t common_length(std::span<const int32_t> a, std::span<const int32_t> b) {
  size_t n = std::min(a.size(), b.size());
  return std::mismatch(a.begin(), a.begin() + int64_t(n), b.begin()).first - a.begin();
}

std::span<const int32_t> page_of(std::span<const int32_t> ids, size_t depth) {
  size_t begin = std::min(ids.size(), depth * KvPages::kPage);
  return ids.subspan(begin, std::min<size_t>(KvPages::kPage, ids.size() - begin));
}

}  // namespace

PromptTree::Match PromptTree::find(std::span<const int32_t> ids) const {
  Match match;
  const Node* at = &root_;
  bool open = true;  // what came before is computed
  for (size_t depth = 0;; depth++) {
    auto rest = page_of(ids, depth);
    Node* best = nullptr;
    int64_t longest = 0;
    for (const auto& child : at->children)
      if (int64_t n = common_length(child->ids, rest); n > longest) best = child.get(), longest = n;
    if (!best) return match;
    const int64_t ready = open ? std::min(longest, best->ready) : 0;
    match.coming += longest - ready;
    if (ready == KvPages::kPage)
      match.whole.push_back(best);
    else if (ready > 0)
      match.part = best, match.part_tokens = ready;
    open = ready == longest;
    if (longest < KvPages::kPage) return match;
    at = best;
  }
}

PromptTree::Node* PromptTree::add(Node* parent, int32_t page, std::span<const int32_t> ids) {
  Node& above = parent ? *parent : root_;
  for (const auto& child : above.children)
    if (common_length(child->ids, ids) == int64_t(ids.size())) return nullptr;
  auto node = std::make_unique<Node>();
  node->page = page;
  node->ids.assign(ids.begin(), ids.end());
  node->users = 1;
  node->parent = &above;
  pool_.hold(page);
  above.children.push_back(std::move(node));
  return above.children.back().get();
}

void PromptTree::use(Node& node) {
  if (node.users++ == 0) idle_--;
}

void PromptTree::leave(Node& node) {
  if (--node.users == 0) idle_++;
}

void PromptTree::prune(const std::vector<std::span<const int32_t>>& starts) { prune(root_, 0, starts); }

bool PromptTree::prune(Node& node, size_t depth, const std::vector<std::span<const int32_t>>& starts) {
  for (size_t i = node.children.size(); i-- > 0;) {
    Node& child = *node.children[i];
    std::vector<std::span<const int32_t>> alike;
    for (auto start : starts)
      if (common_length(page_of(start, depth), child.ids) == int64_t(child.ids.size())) alike.push_back(start);
    if (prune(child, depth + 1, alike) && child.users == 0 && alike.empty()) remove(child);
  }
  return node.children.empty();
}

void PromptTree::evict() {
  // The end of a path first: what hangs below a page cannot be found without it.
  Node* at = &root_;
  auto idle_below = [](Node& node, auto&& self) -> Node* {
    for (const auto& child : node.children)
      if (Node* found = self(*child, self)) return found;
    return node.users == 0 && node.parent && node.children.empty() ? &node : nullptr;
  };
  if (Node* node = idle_below(*at, idle_below)) remove(*node);
}

void PromptTree::remove(Node& node) {
  pool_.drop(node.page);
  idle_--;
  auto& list = node.parent->children;
  list.erase(std::find_if(list.begin(), list.end(), [&](const auto& each) { return each.get() == &node; }));
}

}  // namespace rolegrad
