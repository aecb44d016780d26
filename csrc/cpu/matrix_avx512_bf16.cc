// The matrix kernels over AVX-512's dot products of bfloat16 pairs.
#include <immintrin.h>

#include <cstdint>

#include "cpu/matrix_kernels.h"
#include "cpu/panels.h"

namespace textopia::cpu {
namespace {

#include "cpu/matrix_attention.h"
#include "cpu/matrix_unit_avx512.h"

}  // namespace

const MatrixKernels& matrix_kernels_avx512_bf16() {
  static constexpr MatrixKernels kKernels = {pack_slab, multiply_slab<Avx512Unit>, pack_head,
                                             attend<Avx512Unit>};
  return kKernels;
}

}  // namespace textopia::cpu
