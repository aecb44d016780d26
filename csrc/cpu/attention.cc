#include "cpu/attention.h"

#include <algorithm>

#include "base/workspace.h"
#include "cpu/product.h"

namespace textopia::cpu {
namespace {

// Packed keys and values of the heads that are worked on at a time; more would only wander through memory.
constexpr int64_t kGroupBytes = int64_t{16} << 20;
constexpr int64_t kMostPerTask = 512;  // keys of a packing task, queries of an attending one

// How many of `count` a task takes, where there are `others` times as many tasks: large pieces, but several
// for each thread. A multiple of 32, which keeps every result as it is.
int64_t part_of(int64_t count, int64_t others, int threads) {
  int64_t part = kMostPerTask;
  while (part > 32 && others * ceil_div(count, part) < 4 * int64_t{threads}) part /= 2;
  return part;
}

HeadForm form_of(const AttentionArgs& args) {
  HeadForm form{};
  form.keys = args.keys;
  form.width = args.width;
  form.key_rows = ceil_div(args.keys, 32) * 32;
  form.value_rows = ceil_div(args.width, 16) * 16;
  return form;
}

int64_t key_elements(const HeadForm& form) { return ceil_div(form.width, 32) * form.key_rows * 32; }
int64_t value_elements(const HeadForm& form) { return form.key_rows * form.value_rows; }

class Attention {
 public:
  Attention(const AttentionArgs& args, const MatrixKernels& kernels)
      : args_(args), kernels_(kernels), form_(form_of(args)) {}

  void run(const Parallel& parallel) {
    const int64_t heads = args_.batch * args_.heads;
    const int64_t head_elements = key_elements(form_) + value_elements(form_);
    const int64_t group = std::clamp<int64_t>(kGroupBytes / (2 * head_elements), 1, heads);
    slabs_ = reinterpret_cast<uint16_t*>(
        thread_scratch(Scratch::kShared, static_cast<size_t>(2 * group * head_elements)));
    for (int64_t first = 0; first < heads; first += group) {
      const int64_t count = std::min(group, heads - first);
      const int64_t keys = part_of(form_.key_rows, count, parallel.count());
      const int64_t queries = part_of(args_.queries, count, parallel.count());
      const int64_t packs = ceil_div(form_.key_rows, keys), blocks = ceil_div(args_.queries, queries);
      parallel(static_cast<size_t>(count * packs), [&](size_t i) {
        const auto task = static_cast<int64_t>(i);
        pack(first + task / packs, task / packs, task % packs * keys, keys);
      });
      parallel(static_cast<size_t>(count * blocks), [&](size_t i) {
        const auto task = static_cast<int64_t>(i);
        attend(first + task / blocks, task / blocks, task % blocks * queries, queries);
      });
    }
  }

 private:
  // The form of a head with its memory; `slot` is its place in the group.
  HeadForm head_in(int64_t slot) const {
    HeadForm form = form_;
    form.key_slab = slabs_ + slot * (key_elements(form_) + value_elements(form_));
    form.value_slab = form.key_slab + key_elements(form_);
    return form;
  }

  const uint16_t* rows_of(const void* base, int64_t stride, int64_t head, int64_t count) const {
    return static_cast<const uint16_t*>(base) + head / args_.heads * count * stride +
           head % args_.heads * args_.width;
  }

  void pack(int64_t head, int64_t slot, int64_t first, int64_t keys) const {
    kernels_.pack_head({head_in(slot), rows_of(args_.k, args_.k_stride, head, args_.keys),
                        rows_of(args_.v, args_.v_stride, head, args_.keys), args_.k_stride, args_.v_stride,
                        first, std::min(first + keys, form_.key_rows)});
  }

  void attend(int64_t head, int64_t slot, int64_t first, int64_t queries) const {
    AttendTask task{};
    task.head = head_in(slot);
    task.q_stride = args_.q_stride;
    task.out_stride = args_.heads * args_.width;
    task.q = rows_of(args_.q, args_.q_stride, head, args_.queries) + first * task.q_stride;
    task.out = const_cast<uint16_t*>(rows_of(args_.out, task.out_stride, head, args_.queries)) +
               first * task.out_stride;
    task.first_query = first;
    task.queries = std::min(queries, args_.queries - first);
    task.scale = args_.scale;
    task.mask_stride = args_.mask_query_stride;
    if (args_.mask != nullptr)
      task.mask = args_.mask + head / args_.heads * args_.mask_batch_stride + first * task.mask_stride;
    task.is_causal = args_.is_causal;
    Carver measure;
    cut(measure, &task);
    Carver carver(thread_scratch(Scratch::kTask, measure.bytes()));
    cut(carver, &task);
    kernels_.attend(task);
  }

  void cut(Carver& carver, AttendTask* task) const {
    const int64_t steps = ceil_div(args_.width, 32);
    task->query_panel = carver.take<uint16_t>(steps * kStepElements);
    task->logits = carver.take<float>(kMostKeys * kQueryBlock);
    task->weight_panel = carver.take<uint16_t>(kMostKeys * kQueryBlock);
    task->sums = carver.take<float>(form_.value_rows * kQueryBlock);
    task->steps = carver.take<Step>(steps + kMostKeys / 32);
  }

  const AttentionArgs& args_;
  const MatrixKernels& kernels_;
  HeadForm form_;
  uint16_t* slabs_ = nullptr;
};

}  // namespace

void attention(const AttentionArgs& args, MatrixUnit unit, const Parallel& parallel) {
  const MatrixKernels* kernels = matrix_kernels(unit);
  if (kernels == nullptr || args.is_float32) return attention_scalar(args, parallel);
  Attention(args, *kernels).run(parallel);
}

}  // namespace textopia::cpu
