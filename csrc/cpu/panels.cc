#include "cpu/panels.h"

#include <algorithm>

#include "cpu/bfloat16.h"

namespace textopia::cpu {
namespace {

constexpr int kHalf = kPanelColumns / 2;

struct Place {
  int64_t panel;
  int column;  // inside of the panel
};

Place place_of(const PanelShape& shape, int64_t column) {
  if (!shape.has_gates) return {column / kPanelColumns, static_cast<int>(column % kPanelColumns)};
  const bool is_gate = column >= shape.columns;
  const int64_t value = is_gate ? column - shape.columns : column;
  return {value / kHalf, static_cast<int>(value % kHalf) + (is_gate ? kHalf : 0)};
}

}  // namespace

int64_t panel_offset(const PanelShape& shape, int64_t column, int64_t channel, int tap) {
  const Place place = place_of(shape, column);
  const int64_t step = place.panel * shape.steps() + channel / kStepChannels * shape.taps + tap;
  const int64_t k = channel % kStepChannels;
  return step * kStepElements + place.column / kHalf * kHalf * kStepChannels + k / 2 * kPanelColumns +
         place.column % kHalf * 2 + k % 2;
}

void pack_conv(const float* weight, const PanelShape& shape, uint16_t* panels) {
  std::fill_n(panels, shape.elements(), uint16_t{0});
  const int64_t rows = shape.has_gates ? 2 * shape.columns : shape.columns;
  for (int64_t column = 0; column < rows; ++column) {
    for (int tap = 0; tap < shape.taps; ++tap) {
      for (int64_t channel = 0; channel < shape.channels; channel += 2) {
        uint16_t* pair = panels + panel_offset(shape, column, channel, tap);
        pair[0] = to_bfloat16(weight[channel]).bits;
        if (channel + 1 < shape.channels) pair[1] = to_bfloat16(weight[channel + 1]).bits;
      }
      weight += shape.channels;
    }
  }
}

void pack_linear(const float* weight, const PanelShape& shape, uint16_t* panels) {
  pack_conv(weight, shape, panels);
}

void split_into_phases(const float* weight, int64_t columns, int64_t channels, float* phases) {
  std::fill_n(phases, kPhases * columns * 4 * channels, 0.0f);
  for (int phase = 0; phase < kPhases; ++phase) {
    for (int64_t column = 0; column < columns; ++column) {
      float* kernel = phases + (phase * columns + column) * 4 * channels;
      for (int dy = 0; dy < 3; ++dy) {
        for (int dx = 0; dx < 3; ++dx) {
          // Enlarged row 2y + p + dy - 1 repeats row y + floor((p + dy - 1) / 2); the first one that phase p
          // sees is y - 1 + p.
          const int y = (phase / 2 + dy + 1) / 2 - phase / 2;
          const int x = (phase % 2 + dx + 1) / 2 - phase % 2;
          const float* from = weight + (column * 9 + dy * 3 + dx) * channels;
          float* to = kernel + (y * 2 + x) * channels;
          for (int64_t c = 0; c < channels; ++c) to[c] += from[c];
        }
      }
    }
  }
}

}  // namespace textopia::cpu
