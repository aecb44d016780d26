// The AVX-512 unit: one instruction adds the products of sixteen words, of two or four channels, to sixteen
// sums. Include only inside the unnamed namespace of a kernel file. A `Dot` has:
//   Sum             float or int32_t
//   Sums            sixteen of them in a register
//   zero(), load(from), store(to, sums), add(sums, a, b)
#pragma once

#include "cpu/matrix_product.h"

template <typename Dot>
struct Avx512Unit {
  using Sum = typename Dot::Sum;
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
                            Sum* sums, bool is_first, Ahead ahead) {
    // Every loop over rows is unrolled, or the compiler keeps the sums in memory.
    typename Dot::Sums sum[kRows][2];
    if (is_first) {
#pragma GCC unroll 14
      for (int r = 0; r < kRows; ++r) sum[r][0] = sum[r][1] = Dot::zero();
    } else {
#pragma GCC unroll 14
      for (int r = 0; r < kRows; ++r) {
        sum[r][0] = Dot::load(sums + r * kPanelColumns);
        sum[r][1] = Dot::load(sums + r * kPanelColumns + 16);
      }
    }
    for (int s = 0; s < step_count; ++s, b += kStepElements) {
      const uint16_t* words = a + steps[s].offset;
      const int word_count = steps[s].words;
#pragma GCC unroll 2
      for (int w = 0; w < word_count; ++w) {
        const __m512i b0 = _mm512_loadu_si512(b + w * 32);
        const __m512i b1 = _mm512_loadu_si512(b + 512 + w * 32);
#pragma GCC unroll 14
        for (int r = 0; r < kRows; ++r) {
          int32_t word;
          __builtin_memcpy(&word, words + r * kStepChannels + w * 2, sizeof(word));
          const __m512i everywhere = _mm512_set1_epi32(word);
          sum[r][0] = Dot::add(sum[r][0], everywhere, b0);
          sum[r][1] = Dot::add(sum[r][1], everywhere, b1);
        }
      }
      ahead.prefetch();
    }
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
      Dot::store(sums + r * kPanelColumns, sum[r][0]);
      Dot::store(sums + r * kPanelColumns + 16, sum[r][1]);
    }
  }

  static void multiply(const uint16_t* a, const Step* steps, int step_count, const uint16_t* b, Sum* sums,
                       int rows, bool is_first, Ahead ahead) {
    using Multiply = void (*)(const uint16_t*, const Step*, int, const uint16_t*, Sum*, bool, Ahead);
    static constexpr Multiply kByRows[kMostRows + 1] = {
        nullptr,           multiply_rows<1>,  multiply_rows<2>,  multiply_rows<3>,  multiply_rows<4>,
        multiply_rows<5>,  multiply_rows<6>,  multiply_rows<7>,  multiply_rows<8>,  multiply_rows<9>,
        multiply_rows<10>, multiply_rows<11>, multiply_rows<12>, multiply_rows<13>, multiply_rows<14>};
    kByRows[rows](a, steps, step_count, b, sums, is_first, ahead);
  }
};
