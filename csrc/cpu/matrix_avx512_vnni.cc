// The int8 kernels over AVX-512's dot products of four bytes.
#include <immintrin.h>

#include <cstdint>

#include "cpu/matrix_kernels.h"
#include "cpu/panels.h"

namespace textopia::cpu {
namespace {

#include "cpu/matrix_quantise.h"
#include "cpu/matrix_unit_avx512.h"

struct ByteDot {
  using Sum = int32_t;
  using Sums = __m512i;
  static __m512i zero() { return _mm512_setzero_si512(); }
  static __m512i load(const int32_t* from) { return _mm512_loadu_si512(from); }
  static void store(int32_t* to, __m512i sums) { _mm512_storeu_si512(to, sums); }
  // Bytes of the activations are unsigned, those of the weights signed; nothing saturates.
  static __m512i add(__m512i sums, __m512i a, __m512i b) { return _mm512_dpbusd_epi32(sums, a, b); }
};

}  // namespace

const Int8Kernels& matrix_kernels_avx512_vnni() {
  static constexpr Int8Kernels kKernels = {find_range, quantise_slab, multiply_slab<Avx512Unit<ByteDot>>};
  return kKernels;
}

}  // namespace textopia::cpu
