// Weights as the matrix units read them: one sequential stream per 32 output columns ("panel"),
//   [columns/32][channels/32][tap][2 halves of 16 columns][16 channel pairs][16 columns][2 channels]
// in bfloat16, padded with zeros. One [2][16][16][2] piece is a "step": 32 channels of one tap. The pairs are
// what AMX TDPBF16PS and AVX-512 VDPBF16PS multiply.
#pragma once

#include <cstddef>
#include <cstdint>

namespace textopia::cpu {

inline constexpr int kPanelColumns = 32;
inline constexpr int kStepChannels = 32;
inline constexpr int kStepElements = kPanelColumns * kStepChannels;
inline constexpr int kPhases = 4;  // output positions of a 2x upsampled pixel, (row, column) = 00 01 10 11

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct PanelShape {
  int64_t columns = 0;     // output features; with gates: of the product
  int64_t channels = 0;    // input features
  int taps = 1;            // kernel pixels
  bool has_gates = false;  // a panel holds 16 columns and the 16 gates that multiply them

  int64_t panels() const { return ceil_div(columns, has_gates ? kPanelColumns / 2 : kPanelColumns); }
  int64_t steps() const { return ceil_div(channels, kStepChannels) * taps; }
  int64_t elements() const { return panels() * steps() * kStepElements; }
};

// Where weight (column, channel, tap) lies in the panels; gates are columns `columns` .. 2 * columns - 1.
int64_t panel_offset(const PanelShape& shape, int64_t column, int64_t channel, int tap);

// `weight` [columns (twice as many with gates)][channels] of float32 to `panels` [shape.elements()].
void pack_linear(const float* weight, const PanelShape& shape, uint16_t* panels);

// `weight` [columns][taps][channels] of float32 (taps row by row) to `panels` [shape.elements()].
void pack_conv(const float* weight, const PanelShape& shape, uint16_t* panels);

// A 3x3 kernel over an image that was enlarged twice by repetition is, for each of the four phases of the
// output, a 2x2 kernel over the image itself. `weight` [columns][9][channels] to the four kernels
// [kPhases][columns][4][channels]; sums in float32.
void split_into_phases(const float* weight, int64_t columns, int64_t channels, float* phases);

}  // namespace textopia::cpu
