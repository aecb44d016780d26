// Convolutions of images in rows of pixels, channels last.
#pragma once

#include <cstdint>

#include "cpu/linear.h"
#include "cpu/product.h"

namespace textopia::cpu {

struct ConvShape {
  int64_t images = 1, height = 1, width = 1;  // of the input
  int64_t channels = 1, columns = 1;          // input and output channels
  int kernel = 3;                             // 1 or 3
  int stride = 1;                             // 1 or 2
  bool upsample = false;  // the image is enlarged twice by repetition before the 3x3 kernel
  bool asymmetric_pad =
      false;  // stride 2: one row of zeros below and one column to the right, none elsewhere

  int64_t out_height() const { return out_size(height); }
  int64_t out_width() const { return out_size(width); }
  // Of the panels: kernel pixels of one phase.
  int taps() const { return upsample ? 4 : kernel * kernel; }

 private:
  int64_t out_size(int64_t size) const;
};

// out = act(x * kernel + bias + time_bias of the image) + residual.
struct ConvArgs {
  const void* x = nullptr;  // [images][height][width][channels]
  // Panels (upsample: four phases, one after the other), or float32 [columns][kernel][kernel][channels].
  WeightView weight;
  ConvShape shape;
  const float* bias = nullptr;      // [columns] or null
  const void* time_bias = nullptr;  // [images][columns] or null
  bool has_one_time_bias = false;   // it is [columns], for all images
  const void* residual = nullptr;   // as out, or null
  void* out = nullptr;              // [images][out_height][out_width][columns]
  Activation activation = Activation::kNone;
  bool is_float32 = false;  // x, time_bias, residual and out; otherwise bfloat16
};

void conv(const ConvArgs& args, MatrixUnit unit, const Parallel& parallel);
void conv_scalar(const ConvArgs& args, const Parallel& parallel);

// The grid on which a convolution is a product of a few constant offsets.
Grid conv_grid(const ConvShape& shape);

}  // namespace textopia::cpu
