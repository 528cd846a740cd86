#include "model/adapter.h"

#include <cmath>

#include "core/error.h"

namespace rolegrad {

AdapterSpec::AdapterSpec(const Model& model) : layers(size_t(model.config().layers)) {
  for (auto& layer : layers)
    for (size_t g = 0; g < layer.size(); g++) layer[g].resize(kModuleNames[g].size());
}

double AdapterSpec::scale(const Module& module) const {
  if (module.rank == 0) return 0;
  const int own = experts > 0 ? module.rank / experts : module.rank;
  return rs_lora ? module.alpha / std::sqrt(double(own)) : module.alpha / own;
}

AdapterLayout::Place AdapterLayout::place(const Model& model, int64_t rows, int64_t cols) {
  Place p{size_, rows, cols, model.backend().leading_dimension(cols)};
  size_ += size_t(rows) * size_t(p.ld);
  return p;
}

AdapterLayout::AdapterLayout(const Model& model, const AdapterSpec& spec) {
  for (int64_t l = 0; l < model.config().layers; l++)
    for (int g = 0; g < kGroups; g++) {
      const auto& modules = spec.layers[size_t(l)][size_t(g)];
      int64_t ranks = 0;
      for (const auto& module : modules) ranks += module.rank;
      a_.push_back(place(model, ranks, model.module_shape(g, 0).first));
      bt_.emplace_back();
      for (size_t m = 0; m < modules.size(); m++)
        bt_.back().push_back(place(model, modules[m].rank, model.module_shape(g, int(m)).second));
    }
  for (int64_t i = 0; spec.experts > 0 && i < model.config().layers * kBlocks; i++)
    routers_.push_back(place(model, spec.experts, model.config().hidden_size));
  size_ = (size_ + size_t(kRow) - 1) / size_t(kRow) * size_t(kRow);
}

Adapter::Adapter(const Model& model, AdapterSpec spec) : model_(model), spec_(std::move(spec)), layout_(model, spec_) {
  parameters_ = model.backend().allocate(layout_.size() * sizeof(float));
  build();
}

Adapter::Adapter(const Adapter& other) : model_(other.model_), spec_(other.spec_), layout_(other.layout_) {
  parameters_ = model_.backend().allocate(layout_.size() * sizeof(float));
  model_.backend().copy(flat(), other.flat());
  build();
  refresh();
}

void Adapter::build() {
  Backend& backend = model_.backend();
  auto* base = static_cast<float*>(parameters_->data());
  auto tensor = [&](const AdapterLayout::Place& p) { return Tensor{base + p.offset, p.rows, p.cols, p.ld}; };
  size_t transposed = 0;
  auto room = [&](int64_t rows, int64_t cols) {
    Tensor t{nullptr, rows, cols, backend.leading_dimension(cols)};
    t.data = reinterpret_cast<float*>(transposed * sizeof(float));  // an offset until the block exists
    transposed += size_t(rows) * size_t(t.ld);
    return t;
  };
  for (int64_t l = 0; l < model_.config().layers; l++)
    for (int g = 0; g < kGroups; g++) {
      LoraGroup group;
      for (const auto& module : spec_.layers[size_t(l)][size_t(g)]) group.add(module.rank, float(spec_.scale(module)));
      group.a = tensor(layout_.a(l, g));
      group.at = room(group.a.cols, group.a.rows);
      for (size_t m = 0; m < kModuleNames[size_t(g)].size(); m++) {
        group.bt.push_back(tensor(layout_.bt(l, g, int(m))));
        group.b.push_back(room(group.bt[m].cols, group.bt[m].rows));
      }
      groups_.push_back(std::move(group));
    }
  for (int64_t i = 0; spec_.experts > 0 && i < model_.config().layers * kBlocks; i++) {
    LoraGroup router;
    router.add(spec_.experts, 1);
    router.a = tensor(layout_.router(i / kBlocks, int(i % kBlocks)));
    router.at = room(router.a.cols, router.a.rows);
    router.bt = {Tensor{}};
    router.b = {Tensor{}};
    routers_.push_back(std::move(router));
  }
  transposes_ = backend.allocate(transposed * sizeof(float));
  auto place = [&](Tensor& t) {
    t.data = static_cast<float*>(transposes_->data()) + reinterpret_cast<uintptr_t>(t.data) / sizeof(float);
  };
  for (auto& group : groups_) {
    place(group.at);
    for (auto& b : group.b) place(b);
  }
  for (auto& router : routers_) place(router.at);
}

Tensor Adapter::flat() const {
  int64_t row = AdapterLayout::kRow;
  return {static_cast<float*>(parameters_->data()), int64_t(layout_.size()) / row, row, row};
}

void Adapter::refresh() {
  for (const auto& group : groups_) model_.backend().refresh_lora(group);
  for (const auto& router : routers_) model_.backend().refresh_lora(router);
}

Tensor Adapter::a(int64_t layer, int group, int m) const {
  const LoraGroup::Module& module = this->group(layer, group).modules[size_t(m)];
  return this->group(layer, group).a.row_range(module.column, module.rank);
}

AdapterGradient::AdapterGradient(const Model& model, const AdapterSpec& spec) : layout_(model, spec) {
  memory_ = model.backend().allocate(layout_.size() * sizeof(double));
  auto* base = static_cast<double*>(memory_->data());
  auto tensor = [&](const AdapterLayout::Place& p) { return GradTensor{base + p.offset, p.rows, p.cols, p.ld}; };
  for (int64_t l = 0; l < model.config().layers; l++)
    for (int g = 0; g < kGroups; g++) {
      LoraGradient group;
      group.a = tensor(layout_.a(l, g));
      for (size_t m = 0; m < kModuleNames[size_t(g)].size(); m++) group.bt.push_back(tensor(layout_.bt(l, g, int(m))));
      groups_.push_back(std::move(group));
    }
  for (int64_t i = 0; spec.experts > 0 && i < model.config().layers * kBlocks; i++)
    routers_.push_back(tensor(layout_.router(i / kBlocks, int(i % kBlocks))));
}

GradTensor AdapterGradient::flat() const {
  int64_t row = AdapterLayout::kRow;
  return {static_cast<double*>(memory_->data()), int64_t(layout_.size()) / row, row, row};
}

GradTensor AdapterGradient::a(int64_t layer, int group, int m) const {
  const LoraGradient& all = groups_[size_t(layer * kGroups + group)];
  int64_t row = 0;
  for (int i = 0; i < m; i++) row += all.bt[size_t(i)].rows;
  return {all.a.data + row * all.a.ld, all.bt[size_t(m)].rows, all.a.cols, all.a.ld};
}

}  // namespace rolegrad
