#include <algorithm>
#include <cmath>
#include <limits>

#include "base/workspace.h"
#include "cpu/attention.h"
#include "cpu/bfloat16.h"

namespace textopia::cpu {
namespace {

constexpr float kForbidden =
    -2e38f;  // a logit that loses against every other, and adds to another one finitely

template <typename T>
void attend(const AttentionArgs& args, int64_t batch, int64_t head, int64_t query) {
  const int64_t channel = head * args.width;
  const T* q = static_cast<const T*>(args.q) + (batch * args.queries + query) * args.q_stride + channel;
  const T* k = static_cast<const T*>(args.k) + batch * args.keys * args.k_stride + channel;
  const T* v = static_cast<const T*>(args.v) + batch * args.keys * args.v_stride + channel;
  T* out = static_cast<T*>(args.out) + ((batch * args.queries + query) * args.heads + head) * args.width;
  const int64_t keys = args.is_causal ? std::min(args.keys, query + 1) : args.keys;
  auto* weights =
      reinterpret_cast<float*>(thread_scratch(Scratch::kTask, static_cast<size_t>(keys) * sizeof(float)));
  float top = -std::numeric_limits<float>::infinity();
  for (int64_t j = 0; j < keys; ++j) {
    float sum = 0.0f;
    for (int64_t c = 0; c < args.width; ++c) sum += to_float(q[c]) * to_float(k[j * args.k_stride + c]);
    weights[j] = sum * args.scale;
    if (args.mask != nullptr)
      weights[j] = std::max(
          weights[j] + args.mask[batch * args.mask_batch_stride + query * args.mask_query_stride + j],
          kForbidden);
    top = std::max(top, weights[j]);
  }
  float total = 0.0f;
  for (int64_t j = 0; j < keys; ++j) total += weights[j] = std::exp(weights[j] - top);
  for (int64_t c = 0; c < args.width; ++c) {
    float sum = 0.0f;
    for (int64_t j = 0; j < keys; ++j) sum += weights[j] * to_float(v[j * args.v_stride + c]);
    store(out + c, sum / total);
  }
}

}  // namespace

void attention_scalar(const AttentionArgs& args, const Parallel& parallel) {
  parallel(static_cast<size_t>(args.batch * args.heads * args.queries), [&](size_t i) {
    const int64_t query = static_cast<int64_t>(i) % args.queries,
                  head = static_cast<int64_t>(i) / args.queries;
    (args.is_float32 ? attend<float> : attend<BFloat16>)(args, head / args.heads, head % args.heads, query);
  });
}

}  // namespace textopia::cpu
