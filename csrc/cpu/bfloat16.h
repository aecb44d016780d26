// bfloat16 in plain code: the upper half of a float32.
#pragma once

#include <bit>
#include <cstdint>

namespace textopia::cpu {

struct BFloat16 {
  uint16_t bits;
};

inline float to_float(BFloat16 x) { return std::bit_cast<float>(uint32_t{x.bits} << 16); }
inline float to_float(float x) { return x; }

// Round to nearest even; a NaN stays one.
inline BFloat16 to_bfloat16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>(bits >> 16 | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

inline void store(BFloat16* to, float x) { *to = to_bfloat16(x); }
inline void store(float* to, float x) { *to = x; }

}  // namespace textopia::cpu
