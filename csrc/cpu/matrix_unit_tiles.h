// The unit of tiles: TDPBF16PS adds a 16 x 32 by 32 x 16 product to a 16 x 16 tile of sums, TDPBUSD one of 64
// channels in int8. Written over a `Tiles` type, so that the same code runs on AMX and, in the tests, on an
// emulation. Include only inside the unnamed namespace of a kernel file. A `Tiles` has, for tile numbers 0 to
// 7:
//   Sum                     float or int32_t
//   begin(), end()          all tiles become 16 rows of 64 bytes; the tiles are given back
//   zero<t>(), load<t>(from, row_bytes), store<t>(to, row_bytes), dot<sum, a, b>()
#pragma once

#include "cpu/matrix_product.h"

template <typename Tiles>
struct TileUnit {
  using Sum = typename Tiles::Sum;

  struct Session {
    Session() { Tiles::begin(); }
    ~Session() { Tiles::end(); }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
  };

  static constexpr int kKeys = 256;
  static constexpr bool kFinishesBeside = true;
  static int block_rows(int) { return kTileRows; }

  // Two tiles of activations and two of weights give four of sums; half as many where 16 rows are enough.
  template <bool kTwo>
  static void multiply_tiles(const uint16_t* a, const Step* steps, int step_count, const uint16_t* b,
                             Sum* sums, bool is_first, Ahead ahead, Waiting<Sum>* waiting) {
    constexpr int64_t kRowBytes = kStepChannels * 2, kSumBytes = kPanelColumns * 4;
    constexpr int64_t kLower = 16 * kPanelColumns;
    if (is_first) {
      Tiles::template zero<0>();
      Tiles::template zero<1>();
      if (kTwo) Tiles::template zero<2>();
      if (kTwo) Tiles::template zero<3>();
    } else {
      Tiles::template load<0>(sums, kSumBytes);
      Tiles::template load<1>(sums + 16, kSumBytes);
      if (kTwo) Tiles::template load<2>(sums + kLower, kSumBytes);
      if (kTwo) Tiles::template load<3>(sums + kLower + 16, kSumBytes);
    }
    for (int s = 0; s < step_count; ++s, b += kStepElements) {
      const uint16_t* rows = a + steps[s].offset;
      Tiles::template load<4>(rows, kRowBytes);
      Tiles::template load<6>(b, kRowBytes);
      Tiles::template dot<0, 4, 6>();
      Tiles::template load<7>(b + kStepElements / 2, kRowBytes);
      Tiles::template dot<1, 4, 7>();
      if (kTwo) {
        Tiles::template load<5>(rows + 16 * kStepChannels, kRowBytes);
        Tiles::template dot<2, 5, 6>();
        Tiles::template dot<3, 5, 7>();
      }
      ahead.prefetch();
      if (waiting != nullptr && waiting->rows > 0) waiting->finish_some();
    }
    Tiles::template store<0>(sums, kSumBytes);
    Tiles::template store<1>(sums + 16, kSumBytes);
    if (kTwo) Tiles::template store<2>(sums + kLower, kSumBytes);
    if (kTwo) Tiles::template store<3>(sums + kLower + 16, kSumBytes);
  }

  static void multiply(const uint16_t* a, const Step* steps, int step_count, const uint16_t* b, Sum* sums,
                       int rows, bool is_first, Ahead ahead, Waiting<Sum>* waiting = nullptr) {
    (rows > 16 ? multiply_tiles<true> : multiply_tiles<false>)(a, steps, step_count, b, sums, is_first, ahead,
                                                               waiting);
  }
};
