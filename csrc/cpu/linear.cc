#include "cpu/linear.h"

#include "cpu/product.h"

namespace textopia::cpu {

void linear(const LinearArgs& args, MatrixUnit unit, const Parallel& parallel) {
  if (unit == MatrixUnit::kScalar || args.is_float32 || args.weight.panels == nullptr)
    return linear_scalar(args, parallel);
  ProductArgs product;
  product.x = static_cast<const uint16_t*>(args.x);
  product.panels = args.weight.panels;
  product.shape = args.shape;
  product.bias = args.bias;
  product.residual = static_cast<const uint16_t*>(args.residual);
  product.out = static_cast<uint16_t*>(args.out);
  product.activation = args.activation;
  multiply(product, Grid::of_rows(args.rows), unit, parallel);
}

}  // namespace textopia::cpu
