// Weights as the matrix units read them: one sequential stream per 32 output columns ("panel"),
//   [columns/32][channels/32][tap][2 halves of 16 columns][16 channel pairs][16 columns][2 channels]
// in bfloat16, padded with zeros. One [2][16][16][2] piece is a "step": 32 channels of one tap. The pairs are
// what AMX TDPBF16PS and AVX-512 VDPBF16PS multiply.
//
// In int8 a step has the same bytes and holds 64 channels, in groups of four where pairs were, as AMX TDPBUSD
// and VPDPBUSD multiply them; a panel ends with what turns its sums into numbers (PanelScales).
#pragma once

#include <cstddef>
#include <cstdint>

namespace textopia::cpu {

inline constexpr int kPanelColumns = 32;
inline constexpr int kStepChannels = 32;
inline constexpr int kStepElements = kPanelColumns * kStepChannels;
inline constexpr int kInt8StepChannels = 2 * kStepChannels;
inline constexpr int kPhases = 4;  // output positions of a 2x upsampled pixel, (row, column) = 00 01 10 11

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Products of a byte and an int8 that an int32 holds: depth * 255 * 127 < 2^31.
inline constexpr int64_t kMostInt8Depth = (int64_t{1} << 31) / (255 * 127);

// Of an int8 panel: weight = q * scale; and the sum of each column's q, which undoes the activations' zero
// point.
struct PanelScales {
  float scale[kPanelColumns];
  int32_t sum[kPanelColumns];
};

struct PanelShape {
  int64_t columns = 0;     // output features; with gates: of the product
  int64_t channels = 0;    // input features
  int taps = 1;            // kernel pixels
  bool has_gates = false;  // a panel holds 16 columns and the 16 gates that multiply them
  bool is_int8 = false;

  int step_channels() const { return is_int8 ? kInt8StepChannels : kStepChannels; }
  int64_t panels() const { return ceil_div(columns, has_gates ? kPanelColumns / 2 : kPanelColumns); }
  int64_t blocks() const { return ceil_div(channels, step_channels()); }
  int64_t steps() const { return blocks() * taps; }
  // Sizes in elements of 16 bits.
  int64_t panel_elements() const {
    return steps() * kStepElements + (is_int8 ? static_cast<int64_t>(sizeof(PanelScales)) / 2 : 0);
  }
  int64_t elements() const { return panels() * panel_elements(); }
};

// Where weight (column, channel, tap) lies in the panels, in bfloat16 or int8 elements; gates are columns
// `columns` .. 2 * columns - 1.
int64_t panel_offset(const PanelShape& shape, int64_t column, int64_t channel, int tap);

// `weight` [columns (twice as many with gates)][channels] of float32 to `panels` [shape.elements()].
void pack_linear(const float* weight, const PanelShape& shape, uint16_t* panels);

// `weight` [columns][taps][channels] of float32 (taps row by row) to `panels` [shape.elements()].
void pack_conv(const float* weight, const PanelShape& shape, uint16_t* panels);

// The scale and the sum of a column of int8 panels.
struct ColumnScale {
  float scale;
  int32_t sum;
};
ColumnScale column_scale(const uint16_t* panels, const PanelShape& shape, int64_t column);

// The same in int8: each column is divided by its largest magnitude / 127 and rounded to nearest even. A
// column with a NaN or an infinity keeps a scale of NaN, so that its results show it.
void pack_int8(const float* weight, const PanelShape& shape, uint16_t* panels);

// A 3x3 kernel over an image that was enlarged twice by repetition is, for each of the four phases of the
// output, a 2x2 kernel over the image itself. `weight` [columns][9][channels] to the four kernels
// [kPhases][columns][4][channels]; sums in float32.
void split_into_phases(const float* weight, int64_t columns, int64_t channels, float* phases);

}  // namespace textopia::cpu
