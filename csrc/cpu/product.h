// Linear layers and convolutions as one thing: rows of a slab, reached at a few constant offsets, times
// panels.
#pragma once

#include <array>
#include <cstdint>

#include "base/isa.h"
#include "cpu/matrix_kernels.h"
#include "cpu/panels.h"
#include "cpu/parallel.h"

namespace textopia::cpu {

// Pixels on a grid whose rows end with one pixel of zeros and whose images end with one row of zeros: these
// serve as border on both sides, so that every pixel reaches its neighbours by a constant distance. With
// stride 2 the image is spread over four planes by the parity of row and column. Tokens are a grid without
// border.
struct Grid {
  int64_t images = 1;
  int64_t in_height = 1, in_width = 1;
  int64_t height = 1, width = 1;            // of the outputs, before enlargement
  int64_t row_pitch = 1, column_pitch = 1;  // rows per image and columns per row, border included
  int stride = 1;
  int planes = 1;
  int phases = 1;  // 4: every place gives 2 x 2 outputs
  int taps = 1;    // of one phase
  struct Tap {
    int plane = 0;
    int64_t shift = 0;
  };
  std::array<std::array<Tap, 9>, kPhases> tap;  // [phase][tap]
  int64_t halo = 0;                             // largest |shift|

  static Grid of_rows(int64_t rows);

  int64_t places() const { return images * row_pitch * column_pitch; }
  // For places first .. first + count - 1: the row of x that plane `plane` has there, or -1.
  void sources(int plane, int64_t first, int64_t count, int32_t* rows) const;
  // The row of the output that phase `phase` writes there, or -1; and the image, which is always valid.
  void targets(int phase, int64_t first, int64_t count, int32_t* rows, int32_t* image) const;
};

struct ProductArgs {
  const uint16_t* x = nullptr;  // [rows][shape.channels] bfloat16
  const uint16_t* panels = nullptr;
  PanelShape shape;                    // of one phase
  int zero_point = 128;                // of x in int8
  const float* bias = nullptr;         // [columns], twice with gates
  const uint16_t* row_bias = nullptr;  // [images][columns], or [columns] for all of them
  bool has_one_row_bias = false;
  const uint16_t* residual = nullptr;  // as out
  uint16_t* out = nullptr;             // [rows][columns]
  Activation activation = Activation::kNone;
};

void multiply(const ProductArgs& args, const Grid& grid, MatrixUnit unit, const Parallel& parallel);

// The functions of `unit`, null for kScalar; for int8 also where the unit lacks it.
const MatrixKernels* matrix_kernels(MatrixUnit unit);
const Int8Kernels* int8_kernels(MatrixUnit unit);

}  // namespace textopia::cpu
