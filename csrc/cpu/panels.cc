#include "cpu/panels.h"

#include <algorithm>
#include <cmath>
#include <limits>

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
  const int together = shape.is_int8 ? 4 : 2, elements = shape.is_int8 ? 2 : 1;  // in a word; in 16 bits
  const int64_t step = channel / shape.step_channels() * shape.taps + tap;
  const int64_t k = channel % shape.step_channels();
  return (place.panel * shape.panel_elements() + step * kStepElements) * elements +
         place.column / kHalf * kHalf * shape.step_channels() + k / together * kHalf * together +
         place.column % kHalf * together + k % together;
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

ColumnScale column_scale(const uint16_t* panels, const PanelShape& shape, int64_t column) {
  const Place place = place_of(shape, column);
  const auto* scales = reinterpret_cast<const PanelScales*>(panels + place.panel * shape.panel_elements() +
                                                            shape.steps() * kStepElements);
  return {scales->scale[place.column], scales->sum[place.column]};
}

void pack_int8(const float* weight, const PanelShape& shape, uint16_t* panels) {
  std::fill_n(panels, shape.elements(), uint16_t{0});
  auto* bytes = reinterpret_cast<int8_t*>(panels);
  const int64_t rows = shape.has_gates ? 2 * shape.columns : shape.columns;
  const int64_t depth = shape.taps * shape.channels;
  for (int64_t column = 0; column < rows; ++column, weight += depth) {
    float most = 0.0f;
    bool is_finite = true;
    for (int64_t k = 0; k < depth; ++k) {
      most = std::max(most, std::fabs(weight[k]));
      is_finite = is_finite && std::isfinite(weight[k]);
    }
    const float scale = is_finite ? most / 127.0f : std::numeric_limits<float>::quiet_NaN();
    // A column of zeros, or of numbers too small to be divided by, is zero.
    const bool is_empty = !is_finite || scale < std::numeric_limits<float>::min();
    const float inverse = is_empty ? 0.0f : 127.0f / most;
    int32_t sum = 0;
    for (int tap = 0; tap < shape.taps && !is_empty; ++tap) {
      for (int64_t channel = 0; channel < shape.channels; ++channel) {
        const auto q = static_cast<int8_t>(std::nearbyint(weight[tap * shape.channels + channel] * inverse));
        bytes[panel_offset(shape, column, channel, tap)] = q;
        sum += q;
      }
    }
    const Place place = place_of(shape, column);
    auto* scales = reinterpret_cast<PanelScales*>(panels + place.panel * shape.panel_elements() +
                                                  shape.steps() * kStepElements);
    scales->scale[place.column] = scale;
    scales->sum[place.column] = sum;
  }
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
