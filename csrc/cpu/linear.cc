#include "cpu/linear.h"

#include "cpu/product.h"

namespace textopia::cpu {

bool is_fast(const WeightView& weight, MatrixUnit unit) {
  if (unit == MatrixUnit::kScalar || weight.panels == nullptr) return false;
  return !weight.is_int8 || int8_kernels(unit) != nullptr;
}

void linear(const LinearArgs& args, MatrixUnit unit, const Parallel& parallel) {
  if (args.is_float32 || !is_fast(args.weight, unit)) return linear_scalar(args, parallel);
  ProductArgs product;
  product.x = static_cast<const uint16_t*>(args.x);
  product.panels = args.weight.panels;
  product.shape = args.shape;
  product.zero_point = args.weight.zero_point;
  product.bias = args.bias;
  product.residual = static_cast<const uint16_t*>(args.residual);
  product.out = static_cast<uint16_t*>(args.out);
  product.activation = args.activation;
  multiply(product, Grid::of_rows(args.rows), unit, parallel);
}

}  // namespace textopia::cpu
