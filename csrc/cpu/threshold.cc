#include "cpu/threshold.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace textopia::cpu {
namespace {

// Magnitudes of floats are in the order of their bits. Their upper bits choose one of kBuckets.
constexpr int kBuckets = 2048;
constexpr int kShift = 20;

uint32_t magnitude(float value) { return std::bit_cast<uint32_t>(value) & 0x7fffffffu; }

// The k-th smallest magnitude, k from 0: counts by bucket, then sorts out one bucket.
uint32_t select(const float* values, size_t count, size_t k, uint32_t* scratch) {
  size_t counts[kBuckets] = {};
  for (size_t i = 0; i < count; ++i) ++counts[magnitude(values[i]) >> kShift];
  uint32_t bucket = 0;
  while (k >= counts[bucket]) k -= counts[bucket++];
  size_t found = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t bits = magnitude(values[i]);
    scratch[found] = bits;  // overwritten by the next one unless it belongs here
    found += bits >> kShift == bucket;
  }
  std::nth_element(scratch, scratch + k, scratch + found);
  return scratch[k];
}

// The magnitude that follows the k-th smallest, `kth`, in order.
uint32_t select_next(const float* values, size_t count, size_t k, uint32_t kth) {
  size_t not_above = 0;
  uint32_t next = 0x7fffffffu;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t bits = magnitude(values[i]);
    not_above += bits <= kth;
    next = std::min(next, bits <= kth ? 0x7fffffffu : bits);
  }
  return not_above > k + 1 ? kth : next;
}

// Sum and sum of squares in separate lanes: the order of additions is the same on every CPU.
class Deviation {
 public:
  void add(size_t i, double value) {
    sum_[i % kLanes] += value;
    squares_[i % kLanes] += value * value;
  }
  // The sum of squared differences from the mean; 0 where it is no more than rounding.
  double spread(size_t count) const {
    double sum = 0.0, squares = 0.0;
    for (size_t lane = 0; lane < kLanes; ++lane) {
      sum += sum_[lane];
      squares += squares_[lane];
    }
    const double spread = squares - sum / static_cast<double>(count) * sum;
    return spread > kRounding * squares ? spread : 0.0;
  }

 private:
  static constexpr size_t kLanes = 4;
  static constexpr double kRounding = 1e-13;
  double sum_[kLanes] = {}, squares_[kLanes] = {};
};

}  // namespace

float quantile_of_magnitudes(const float* values, size_t count, float ratio, uint32_t* scratch) {
  const float rank = std::min(ratio * static_cast<float>(count - 1), static_cast<float>(count - 1));
  const float floor = std::floor(rank), share = rank - floor;
  const size_t below = std::min(static_cast<size_t>(floor), count - 1);
  const uint32_t bits = select(values, count, below, scratch);
  const float low = std::bit_cast<float>(bits);
  if (share == 0.0f || below == count - 1) return low;
  const float high = std::bit_cast<float>(select_next(values, count, below, bits));
  // From the nearer end, as torch.lerp.
  return share < 0.5f ? low + share * (high - low) : high - (high - low) * (1.0f - share);
}

void threshold(const float* source, float* target, size_t count, float ratio, float high, uint32_t* scratch) {
  const float bound = std::min(std::max(quantile_of_magnitudes(source, count, ratio, scratch), 1.0f), high);
  for (size_t i = 0; i < count; ++i) target[i] = std::min(std::max(source[i], -bound), bound) / bound;
}

double deviation_ratio(const float* negative, const float* positive, size_t count, double guidance) {
  Deviation of_positive, of_guided;
  for (size_t i = 0; i < count; ++i) {
    const double plain = positive[i];
    of_positive.add(i, plain);
    of_guided.add(i, negative[i] + guidance * (plain - negative[i]));
  }
  const double spread = of_guided.spread(count);
  return spread == 0.0 ? 1.0 : std::sqrt(of_positive.spread(count) / spread);
}

}  // namespace textopia::cpu
