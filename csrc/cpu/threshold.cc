#include "cpu/threshold.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace textopia::cpu {
namespace {

// Magnitudes of floats are in the order of their bits; the 31 bits are looked at in three digits.
constexpr int kDigitShifts[] = {20, 10, 0};
constexpr uint32_t kDigits = 2048;
constexpr uint32_t kLargest = 0x7fffffffu;

uint32_t magnitude(float value) { return std::bit_cast<uint32_t>(value) & kLargest; }

// The k-th smallest magnitude, k from 0: by digit, counts and keeps those that share the digit of the k-th.
uint32_t select(const float* values, size_t count, size_t k, uint32_t* scratch) {
  for (size_t i = 0; i < count; ++i) scratch[i] = magnitude(values[i]);
  for (const int shift : kDigitShifts) {
    const uint32_t mask = (shift == 20 ? kDigits : kDigits / 2) - 1;
    uint32_t counts[kDigits] = {};
    for (size_t i = 0; i < count; ++i) ++counts[scratch[i] >> shift & mask];
    uint32_t digit = 0;
    while (k >= counts[digit]) k -= counts[digit++];
    size_t kept = 0;
    for (size_t i = 0; i < count; ++i) {
      const uint32_t bits = scratch[i];
      scratch[kept] = bits;  // overwritten by the next one unless it belongs here
      kept += (bits >> shift & mask) == digit;
    }
    count = kept;
  }
  return scratch[0];
}

// The magnitude that follows the k-th smallest, `kth`, in order.
uint32_t select_next(const float* values, size_t count, size_t k, uint32_t kth) {
  uint32_t not_above = 0, next = kLargest;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t bits = magnitude(values[i]);
    not_above += bits <= kth;
    next = std::min(next, bits <= kth ? kLargest : bits);
  }
  return not_above > k + 1 ? kth : next;
}

// Sums in separate lanes, so that the order of additions is the same on every CPU.
constexpr size_t kLanes = 8;

struct Sums {
  double sum[kLanes] = {}, squares[kLanes] = {};

  // The sum of squared differences from the mean; 0 where it is no more than rounding.
  double spread(size_t count) const {
    double total = 0.0, square = 0.0;
    for (size_t lane = 0; lane < kLanes; ++lane) {
      total += sum[lane];
      square += squares[lane];
    }
    const double spread = square - total / static_cast<double>(count) * total;
    return spread > kRounding * square ? spread : 0.0;
  }

  static constexpr double kRounding = 1e-13;
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
  Sums plain, guided;
  const auto add = [&](size_t i, size_t lane) {
    const double p = positive[i], n = negative[i];
    const double g = n + guidance * (p - n);
    plain.sum[lane] += p;
    plain.squares[lane] += p * p;
    guided.sum[lane] += g;
    guided.squares[lane] += g * g;
  };
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane) add(i + lane, lane);
  for (size_t lane = 0; i < count; ++i, ++lane) add(i, lane);
  const double spread = guided.spread(count);
  return spread == 0.0 ? 1.0 : std::sqrt(plain.spread(count) / spread);
}

}  // namespace textopia::cpu
