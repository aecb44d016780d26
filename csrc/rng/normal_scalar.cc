// Normal kernels for any CPU: the oracle of the others. std::fma makes its roundings those of the wide ones.
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "rng/normal.h"

namespace textopia::rng {
namespace {

#include "rng/cuda_math.h"
#include "rng/normal_math.h"

struct Lane {
  using Float = float;
  using Bits = uint32_t;

  static Float value(float x) { return x; }
  static Bits bits(uint32_t x) { return x; }
  static Bits as_bits(Float x) { return std::bit_cast<uint32_t>(x); }
  static Float as_float(Bits x) { return std::bit_cast<float>(x); }
  static Float to_float(Bits x) { return static_cast<float>(static_cast<int32_t>(x)); }
  static Bits truncate(Float x) { return static_cast<uint32_t>(static_cast<int32_t>(x)); }
  static Float add(Float a, Float b) { return a + b; }
  static Float sub(Float a, Float b) { return a - b; }
  static Float mul(Float a, Float b) { return a * b; }
  static Float fma(Float a, Float b, Float c) { return std::fma(a, b, c); }
  static Float fms(Float a, Float b, Float c) { return std::fma(a, b, -c); }
  static Float fnma(Float a, Float b, Float c) { return std::fma(-a, b, c); }
  static Float sqrt(Float x) { return std::sqrt(x); }
  static Bits add_bits(Bits a, Bits b) { return a + b; }
  static Bits sub_bits(Bits a, Bits b) { return a - b; }
  static Bits and_bits(Bits a, Bits b) { return a & b; }
  static Bits or_bits(Bits a, Bits b) { return a | b; }
  static Bits xor_bits(Bits a, Bits b) { return a ^ b; }
  static Float xor_float(Float a, Bits b) { return as_float(as_bits(a) ^ b); }
  template <int kCount>
  static Bits shift_left(Bits x) {
    return x << kCount;
  }
  template <int kCount>
  static Bits shift_right(Bits x) {
    return x >> kCount;
  }
  template <int kCount>
  static Bits shift_right_signed(Bits x) {
    return static_cast<uint32_t>(static_cast<int32_t>(x) >> kCount);
  }
  static Bits has_bits(Bits x, Bits bit) { return (x & bit) == bit ? ~0u : 0u; }
  static Float select(Bits mask, Float if_set, Float if_clear) { return mask ? if_set : if_clear; }
};

struct LaneDouble {
  using Double = double;
  using Bits = uint64_t;

  static Double value(double x) { return x; }
  static Bits bits(uint64_t x) { return x; }
  static Bits as_bits(Double x) { return std::bit_cast<uint64_t>(x); }
  static Double as_double(Bits x) { return std::bit_cast<double>(x); }
  static Double add(Double a, Double b) { return a + b; }
  static Double mul(Double a, Double b) { return a * b; }
  static Double div(Double a, Double b) { return a / b; }
  static Double fma(Double a, Double b, Double c) { return std::fma(a, b, c); }
  static Double sqrt(Double x) { return std::sqrt(x); }
  static Bits add_bits(Bits a, Bits b) { return a + b; }
  static Bits sub_bits(Bits a, Bits b) { return a - b; }
  static Bits and_bits(Bits a, Bits b) { return a & b; }
  static Bits or_bits(Bits a, Bits b) { return a | b; }
  static Double xor_double(Double a, Bits b) { return as_double(as_bits(a) ^ b); }
  template <int kCount>
  static Bits shift_left(Bits x) {
    return x << kCount;
  }
  template <int kCount>
  static Bits shift_right(Bits x) {
    return x >> kCount;
  }
  static Double select_odd(Bits x, Double if_odd, Double if_even) { return x & 1 ? if_odd : if_even; }
};

void advance(uint32_t* words, size_t block_count) {
  for (size_t k = 0; k < kMtWords * block_count; ++k)
    words[kMtWords + k] = mt_step<Lane>(words[k], words[k + 1], words[k + 397]);
}

void torch_normals(const uint32_t* words, float* out, size_t block_count) {
  for (size_t block = 0; block < block_count; ++block, words += kTorchBlock, out += kTorchBlock)
    for (size_t i = 0; i < 8; ++i) torch_pair<Lane>(words[i], words[i + 8], out[i], out[i + 8]);
}

void philox_normals(uint64_t seed, uint64_t draw, uint64_t first_group, float* out, size_t group_count) {
  for (size_t group = 0; group < group_count; ++group, out += kPhiloxGroup) {
    for (size_t i = 0; i < 8; ++i) {
      uint32_t words[4];
      philox4x32_10(seed, (first_group + group) * 8 + i, draw, words);
      philox_pair<Lane>(words[0], words[1], out[i], out[i + 8]);
      philox_pair<Lane>(words[2], words[3], out[i + 16], out[i + 24]);
    }
  }
}

void cuda_normals(uint64_t seed, uint64_t draw, float* out, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    uint32_t words[4];
    philox4x32_10(seed, draw & 0xffffffffu, i, words);
    out[i] = static_cast<float>(cuda_normal<LaneDouble>(words[0], words[1]));
  }
}

constexpr NormalKernels kKernels = {advance, torch_normals, philox_normals, cuda_normals};

}  // namespace

const NormalKernels& normal_kernels_scalar() { return kKernels; }

}  // namespace textopia::rng
