// The matrix kernels over AVX-512's dot products of bfloat16 pairs.
#include <immintrin.h>

#include <cstdint>

#include "cpu/matrix_kernels.h"
#include "cpu/panels.h"

namespace textopia::cpu {
namespace {

#include "cpu/matrix_attention.h"
#include "cpu/matrix_unit_avx512.h"

struct PairDot {
  using Sum = float;
  using Sums = __m512;
  static __m512 zero() { return _mm512_setzero_ps(); }
  static __m512 load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, __m512 sums) { _mm512_storeu_ps(to, sums); }
  static __m512 add(__m512 sums, __m512i a, __m512i b) {
    return _mm512_dpbf16_ps(sums, (__m512bh)a, (__m512bh)b);
  }
};

}  // namespace

const MatrixKernels& matrix_kernels_avx512_bf16() {
  static constexpr MatrixKernels kKernels = {pack_slab, multiply_slab<Avx512Unit<PairDot>>, pack_head,
                                             attend<Avx512Unit<PairDot>>};
  return kKernels;
}

}  // namespace textopia::cpu
