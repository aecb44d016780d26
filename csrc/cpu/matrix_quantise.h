// Activations as bytes. Include only inside the unnamed namespace of a kernel file.
#pragma once

#include "cpu/lanes_bf16_avx512.h"
#include "cpu/quantise.h"

// The largest of 32 unsigned numbers.
inline uint16_t largest_of(__m512i x) {
  const __m256i half = _mm256_max_epu16(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
  const __m128i few = _mm_max_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  const __m128i least = _mm_minpos_epu16(_mm_xor_si128(few, _mm_set1_epi16(-1)));
  return static_cast<uint16_t>(~_mm_extract_epi16(least, 0));
}

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
  task.high = largest_of(high);
  const uint16_t lowest = largest_of(low);
  task.low = lowest > 0x7fff ? lowest & 0x7fff : 0;
}

// 64 numbers to bytes; those past the end of the row become zero points.
inline __m512i quantise_lanes(const uint16_t* from, int64_t count, __m512 inverse, __m512 zero_point) {
  __m512i q[4];
  for (int i = 0; i < 4; ++i)
    q[i] = _mm512_cvtps_epi32(
        _mm512_fmadd_ps(load_bf16(from + i * 16, first_lanes(count - i * 16)), inverse, zero_point));
  // Packing saturates, and works on 128 bits at a time: the order is put right at the end.
  const __m512i bytes = _mm512_packus_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
  const __m512i order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
  return _mm512_permutexvar_epi32(order, bytes);
}

inline void quantise_slab(const QuantiseTask& task) {
  const PackTask& rows = task.rows;
  const int64_t blocks = (rows.channels + kInt8StepChannels - 1) / kInt8StepChannels;
  const int64_t block_stride = rows.slab_rows * kStepChannels;
  const __m512 zero_point = _mm512_set1_ps(static_cast<float>(task.zero_point));
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
      const int64_t channel = b * kInt8StepChannels;
      _mm512_store_si512(to + b * block_stride,
                         quantise_lanes(from + channel, rows.channels - channel, inverse, zero_point));
    }
  }
}
