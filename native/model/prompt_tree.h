#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "model/page_pool.h"
#include "ops/backend.h"

namespace rolegrad {

/// The pages of prompts by what they hold: a path from the root spells a prompt, a page of 64 tokens at a time, and the
/// last page of a prompt may be filled in part. Sequences whose prompts begin alike hold the same whole pages; of a
/// page filled in part, or shared in part, they take a copy. A tree belongs to one version of the adapters, and all
/// positions of a prompt run under the base role, so token ids alone are the key.
class PromptTree {
 public:
  explicit PromptTree(PagePool& pool) : pool_(pool) {}

  struct Node {
    int32_t page = -1;         // which the tree holds, too
    std::vector<int32_t> ids;  // at most a page's: what it holds from its first position on
    int64_t ready = 0;         // so many of them are computed; the rest are in the step that is being put together
    int64_t users = 0;         // sequences that hold the page
    Node* parent = nullptr;
    std::vector<std::unique_ptr<Node>> children;
  };

  /// How much of a sequence's start the tree has.
  struct Match {
    std::vector<Node*> whole;  // pages to share
    Node* part = nullptr;      // a page whose first part_tokens are the sequence's next
    int64_t part_tokens = 0;
    int64_t coming = 0;  // tokens more that another sequence computes in this very step
    int64_t tokens() const { return int64_t(whole.size()) * KvPages::kPage + part_tokens; }
  };
  Match find(std::span<const int32_t> ids) const;

  /// A node for `page`, which holds `ids` after those of `parent` (null: the first page) and is used by one sequence.
  /// Null where the tree has them already.
  Node* add(Node* parent, int32_t page, std::span<const int32_t> ids);
  void use(Node& node);
  void leave(Node& node);

  /// Pages that no sequence holds.
  int64_t idle() const { return idle_; }
  /// Gives back idle pages, but for those whose tokens one of `starts` begins with.
  void prune(const std::vector<std::span<const int32_t>>& starts);
  /// Gives back one idle page. There must be one.
  void evict();

 private:
  bool prune(Node& node, size_t depth, const std::vector<std::span<const int32_t>>& starts);
  void remove(Node& node);

  PagePool& pool_;
  Node root_;
  int64_t idle_ = 0;
};

}  // namespace rolegrad
