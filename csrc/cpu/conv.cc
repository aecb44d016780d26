#include "cpu/conv.h"

#include <algorithm>

namespace textopia::cpu {
namespace {

// Where tap `d` (0, 1, 2) of output row y reads: row y + first of the plane of that parity.
struct Reach {
  int parity;
  int first;
};

Reach reach_of(const ConvShape& shape, int phase, int d) {
  if (shape.upsample) return {0, d - 1 + phase};
  if (shape.kernel == 1) return {0, 0};
  if (shape.stride == 1) return {0, d - 1};
  const int row = shape.asymmetric_pad ? d : d - 1;  // from 2y
  return {row & 1, row < 0 ? -1 : row / 2};
}

}  // namespace

int64_t ConvShape::out_size(int64_t size) const {
  if (upsample) return 2 * size;
  const int64_t padding = kernel == 1 ? 0 : asymmetric_pad ? 1 : 2;
  return size + padding < kernel ? 0 : (size + padding - kernel) / stride + 1;
}

Grid conv_grid(const ConvShape& shape) {
  if (shape.kernel == 1 && shape.stride == 1) {
    // Still image by image: a time bias needs to know which one it is.
    Grid grid = Grid::of_rows(shape.height * shape.width);
    grid.images = shape.images;
    return grid;
  }
  Grid grid;
  grid.images = shape.images;
  grid.in_height = shape.height;
  grid.in_width = shape.width;
  grid.height = shape.upsample ? shape.height : shape.out_height();
  grid.width = shape.upsample ? shape.width : shape.out_width();
  grid.stride = shape.stride;
  grid.row_pitch = std::max(grid.height, ceil_div(shape.height, shape.stride)) + 1;
  grid.column_pitch = std::max(grid.width, ceil_div(shape.width, shape.stride)) + 1;
  grid.planes = shape.stride == 2 && shape.kernel == 3 ? 4 : 1;
  grid.phases = shape.upsample ? kPhases : 1;
  grid.taps = shape.taps();
  const int side = shape.upsample ? 2 : shape.kernel;
  for (int phase = 0; phase < grid.phases; ++phase) {
    for (int t = 0; t < grid.taps; ++t) {
      const Reach row = reach_of(shape, phase / 2, t / side);
      const Reach column = reach_of(shape, phase % 2, t % side);
      Grid::Tap& tap = grid.tap[phase][t];
      tap.plane = row.parity * 2 + column.parity;
      tap.shift = row.first * grid.column_pitch + column.first;
      grid.halo = std::max(grid.halo, tap.shift < 0 ? -tap.shift : tap.shift);
    }
  }
  return grid;
}

void conv(const ConvArgs& args, MatrixUnit unit, const Parallel& parallel) {
  if (args.is_float32 || !is_fast(args.weight, unit)) return conv_scalar(args, parallel);
  ProductArgs product;
  product.x = static_cast<const uint16_t*>(args.x);
  product.panels = args.weight.panels;
  product.shape = {args.shape.columns, args.shape.channels, args.shape.taps(), false, args.weight.is_int8};
  product.zero_point = args.weight.zero_point;
  product.bias = args.bias;
  product.row_bias = static_cast<const uint16_t*>(args.time_bias);
  product.has_one_row_bias = args.has_one_time_bias;
  product.residual = static_cast<const uint16_t*>(args.residual);
  product.out = static_cast<uint16_t*>(args.out);
  product.activation = args.activation;
  multiply(product, conv_grid(args.shape), unit, parallel);
}

}  // namespace textopia::cpu
