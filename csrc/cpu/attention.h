// softmax(scale * Q K^T + mask) V for many heads, heads side by side in the channels.
#pragma once

#include <cstdint>

#include "base/isa.h"
#include "cpu/parallel.h"

namespace textopia::cpu {

struct AttentionArgs {
  // Rows of a query or key; head h is at channels h * width .. (h + 1) * width - 1. The arrays may lie inside
  // of each other (q, k and v side by side), hence a stride each, in elements.
  const void* q = nullptr;  // [batch][queries]
  const void* k = nullptr;  // [batch][keys]
  const void* v = nullptr;  // [batch][keys]
  int64_t q_stride = 0, k_stride = 0, v_stride = 0;
  void* out = nullptr;          // [batch][queries][heads * width]
  const float* mask = nullptr;  // added to the logits: of batch b and query i at b * .. + i * .. , or null
  int64_t mask_batch_stride = 0, mask_query_stride = 0;  // 0 where all share one
  int64_t batch = 1, heads = 1, width = 1, queries = 1, keys = 1;
  float scale = 1.0f;  // not negative
  bool is_causal = false;
  bool is_float32 = false;  // q, k, v and out; otherwise bfloat16
};

// Logits of any size are safe; a query that a mask forbids every key sees all of them alike.
void attention(const AttentionArgs& args, MatrixUnit unit, const Parallel& parallel);
void attention_scalar(const AttentionArgs& args, const Parallel& parallel);

}  // namespace textopia::cpu
