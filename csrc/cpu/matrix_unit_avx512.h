// The AVX-512 unit: VDPBF16PS adds the products of sixteen pairs of channels to sixteen sums. Include only
// inside the unnamed namespace of a kernel file.
#pragma once

#include "cpu/matrix_product.h"

struct Avx512Unit {
  // 28 registers of sums, two of weights, one of activations: 32 columns of 14 rows.
  static constexpr int kMostRows = 14;
  static constexpr int kKeys = 224;               // whole blocks of rows, and of 32 keys
  static constexpr bool kFinishesBeside = false;  // no register is free
  struct Session {};

  // Equal blocks: a short last one would leave most of the registers idle.
  static int block_rows(int rows) {
    const int blocks = (rows + kMostRows - 1) / kMostRows;
    return (rows + blocks - 1) / blocks;
  }

  template <int kRows>
  static void multiply_rows(const uint16_t* a, const Step* steps, int step_count, const uint16_t* b,
                            float* sums, bool is_first, Ahead ahead) {
    // Every loop over rows is unrolled, or the compiler keeps the sums in memory.
    __m512 sum[kRows][2];
    if (is_first) {
#pragma GCC unroll 14
      for (int r = 0; r < kRows; ++r) sum[r][0] = sum[r][1] = _mm512_setzero_ps();
    } else {
#pragma GCC unroll 14
      for (int r = 0; r < kRows; ++r) {
        sum[r][0] = _mm512_loadu_ps(sums + r * kPanelColumns);
        sum[r][1] = _mm512_loadu_ps(sums + r * kPanelColumns + 16);
      }
    }
    for (int s = 0; s < step_count; ++s, b += kStepElements) {
      const uint16_t* pairs = a + steps[s].offset;
      const int pair_count = steps[s].pairs;
#pragma GCC unroll 2
      for (int p = 0; p < pair_count; ++p) {
        const auto b0 = (__m512bh)_mm512_loadu_si512(b + p * 32);
        const auto b1 = (__m512bh)_mm512_loadu_si512(b + 512 + p * 32);
#pragma GCC unroll 14
        for (int r = 0; r < kRows; ++r) {
          int32_t pair;
          __builtin_memcpy(&pair, pairs + r * kStepChannels + p * 2, sizeof(pair));
          const auto both = (__m512bh)_mm512_set1_epi32(pair);
          sum[r][0] = _mm512_dpbf16_ps(sum[r][0], both, b0);
          sum[r][1] = _mm512_dpbf16_ps(sum[r][1], both, b1);
        }
      }
      ahead.prefetch();
    }
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
      _mm512_storeu_ps(sums + r * kPanelColumns, sum[r][0]);
      _mm512_storeu_ps(sums + r * kPanelColumns + 16, sum[r][1]);
    }
  }

  static void multiply(const uint16_t* a, const Step* steps, int step_count, const uint16_t* b, float* sums,
                       int rows, bool is_first, Ahead ahead) {
    using Multiply = void (*)(const uint16_t*, const Step*, int, const uint16_t*, float*, bool, Ahead);
    static constexpr Multiply kByRows[kMostRows + 1] = {
        nullptr,           multiply_rows<1>,  multiply_rows<2>,  multiply_rows<3>,  multiply_rows<4>,
        multiply_rows<5>,  multiply_rows<6>,  multiply_rows<7>,  multiply_rows<8>,  multiply_rows<9>,
        multiply_rows<10>, multiply_rows<11>, multiply_rows<12>, multiply_rows<13>, multiply_rows<14>};
    kByRows[rows](a, steps, step_count, b, sums, is_first, ahead);
  }
};
