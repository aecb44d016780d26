// Activations as bytes. Include only inside the unnamed namespace of a kernel file.
#pragma once

#include "cpu/lanes_bf16_avx512.h"
#include "cpu/quantise.h"

inline void find_range(RangeTask& task) {
  // As signed integers the largest is the largest positive number; as unsigned ones the largest is the
  // negative one of the largest magnitude.
  __m512i high = _mm512_setzero_si512(), low = high;
  int64_t i = 0;
  for (; i + 32 <= task.count; i += 32) {
    const __m512i bits = _mm512_loadu_si512(task.from + i);
    high = _mm512_max_epi16(high, bits);
    low = _mm512_max_epu16(low, bits);
  }
  if (i < task.count) {
    const auto rest = static_cast<__mmask32>((uint64_t{1} << (task.count - i)) - 1);
    const __m512i bits = _mm512_maskz_loadu_epi16(rest, task.from + i);
    high = _mm512_max_epi16(high, bits);
    low = _mm512_max_epu16(low, bits);
  }
  alignas(64) uint16_t highs[32], lows[32];
  _mm512_store_si512(highs, high);
  _mm512_store_si512(lows, low);
  task.high = task.low = 0;
  for (int lane = 0; lane < 32; ++lane) {
    if (highs[lane] > task.high) task.high = highs[lane];
    const uint16_t magnitude = lows[lane] & 0x7fff;
    if (lows[lane] > 0x7fff && magnitude > task.low) task.low = magnitude;
  }
}

// Sixteen numbers to bytes.
inline __m128i quantise_lanes(__m256i bits, __m512 inverse, __m512i zero_point) {
  const __m512i q = _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(widen(bits), inverse)), zero_point);
  return _mm512_cvtusepi32_epi8(_mm512_max_epi32(q, _mm512_setzero_si512()));
}

inline void quantise_slab(const QuantiseTask& task) {
  const PackTask& rows = task.rows;
  const int64_t blocks = (rows.channels + kInt8StepChannels - 1) / kInt8StepChannels;
  const int64_t block_stride = rows.slab_rows * kStepChannels;
  const __m512i zero_point = _mm512_set1_epi32(task.zero_point);
  const __m512i border = _mm512_set1_epi8(static_cast<char>(task.zero_point));
  for (int64_t r = 0; r < rows.rows; ++r) {
    uint16_t* to = rows.slab + r * kStepChannels;
    if (rows.sources[r] < 0) {
      if (!task.has_scales) task.scales[r] = 0.0f;
      for (int64_t b = 0; b < blocks; ++b) _mm512_store_si512(to + b * block_stride, border);
      continue;
    }
    const uint16_t* from = rows.from + rows.sources[r] * rows.channels;
    if (!task.has_scales) {
      RangeTask range = {from, rows.channels, 0, 0};
      find_range(range);
      task.scales[r] = scale_of(range.high, range.low, task.zero_point);
    }
    const __m512 inverse = _mm512_set1_ps(inverse_of(task.scales[r]));
    for (int64_t b = 0; b < blocks; ++b) {
      for (int quarter = 0; quarter < 4; ++quarter) {
        const int64_t channel = b * kInt8StepChannels + quarter * 16;
        const __mmask16 lanes = first_lanes(rows.channels - channel);
        const __m256i bits = lanes == kAllLanes ? _mm256_loadu_si256((const __m256i*)(from + channel))
                                                : _mm256_maskz_loadu_epi16(lanes, from + channel);
        _mm_store_si128((__m128i*)(to + b * block_stride + quarter * 8),
                        quantise_lanes(bits, inverse, zero_point));
      }
    }
  }
}
