// out = act(x W^T + bias) + residual, or with gates value * gelu(gate): the linear layers of a network.
#pragma once

#include <cstdint>

#include "base/isa.h"
#include "cpu/matrix_kernels.h"
#include "cpu/panels.h"
#include "cpu/parallel.h"

namespace textopia::cpu {

// Panels of bfloat16 or int8, or float32 as the graph has it ([columns][taps][channels]); one of the two.
struct WeightView {
  const uint16_t* panels = nullptr;
  const float* plain = nullptr;
  bool is_int8 = false;
  int zero_point = 128;  // of the activations that int8 panels multiply
};

struct LinearArgs {
  const void* x = nullptr;  // [rows][shape.channels]
  WeightView weight;
  PanelShape shape;                // as the panels are
  const float* bias = nullptr;     // [columns], with gates [2 * columns]; or null
  const void* residual = nullptr;  // [rows][columns] or null; may be out
  void* out = nullptr;             // [rows][columns]
  int64_t rows = 0;
  Activation activation = Activation::kNone;
  bool is_float32 = false;  // x, residual and out; otherwise bfloat16
};

// Whether `unit` multiplies these panels.
bool is_fast(const WeightView& weight, MatrixUnit unit);

// Sums in float32, of int8 in int32. `unit` multiplies bfloat16 x by panels; everything else is plain code.
void linear(const LinearArgs& args, MatrixUnit unit, const Parallel& parallel);

// The specification, and what runs where nothing faster can: one row after the other, in float32.
void linear_scalar(const LinearArgs& args, const Parallel& parallel);

}  // namespace textopia::cpu
