// Conversions for any CPU: the oracle of the others. Branches are written as selections so that the compiler
// can vectorise them.
#include <bit>
#include <cstddef>
#include <cstdint>

#include "cpu/convert_kernels.h"

namespace textopia::cpu {
namespace {

uint16_t half_of(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u | (magnitude >> 13 & 0x3ffu);
  } else if (magnitude >= 0x477ff000u) {
    half = 0x7c00u;  // 65520 and more: halfway beyond the largest half, or infinite
  } else if (magnitude < 0x38800000u) {
    // Below 2^-14 halves are multiples of 2^-24, the spacing of floats at 1/2: adding 1/2 rounds to it.
    half = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    // Rebias the exponent by 112 and round the 13 lost bits to nearest even.
    half = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  }
  return static_cast<uint16_t>(sign | half);
}

float float_of_half(uint16_t value) {
  const uint32_t sign = (value & 0x8000u) << 16;
  const uint32_t magnitude = value & 0x7fffu;
  uint32_t bits;
  if (magnitude > 0x7c00u) {
    bits = 0x7fc00000u | magnitude << 13;
  } else if (magnitude == 0x7c00u) {
    bits = 0x7f800000u;
  } else if (magnitude < 0x400u) {
    bits = std::bit_cast<uint32_t>(static_cast<float>(magnitude) * 0x1p-24f);
  } else {
    bits = (magnitude << 13) + 0x38000000u;
  }
  return std::bit_cast<float>(sign | bits);
}

void float_to_half(const float* source, uint16_t* target, size_t count) {
  for (size_t i = 0; i < count; ++i) target[i] = half_of(source[i]);
}

void half_to_float(const uint16_t* source, float* target, size_t count) {
  for (size_t i = 0; i < count; ++i) target[i] = float_of_half(source[i]);
}

void float_to_bfloat16(const float* source, uint16_t* target, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(source[i]);
    const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    const uint32_t quiet = bits >> 16 | 0x40u;
    target[i] = static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
  }
}

void bfloat16_to_float(const uint16_t* source, float* target, size_t count) {
  for (size_t i = 0; i < count; ++i) target[i] = std::bit_cast<float>(static_cast<uint32_t>(source[i]) << 16);
}

constexpr ConvertKernels kKernels = {float_to_half, half_to_float, float_to_bfloat16, bfloat16_to_float};

}  // namespace

const ConvertKernels& convert_kernels_scalar() { return kKernels; }

}  // namespace textopia::cpu
