// The fused update for AVX-512, sixteen floats at a time.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/combine_kernels.h"

namespace textopia::cpu {
namespace {

#include "cpu/combine_lanes.h"

struct Lanes16 {
  using Float = __m512;
  using Bits = __m512i;
  static constexpr size_t kWidth = 16;

  static __mmask16 mask(size_t count) { return static_cast<__mmask16>((1u << count) - 1); }
  static Float value(float x) { return _mm512_set1_ps(x); }
  static Bits zero_bits() { return _mm512_setzero_si512(); }
  static Float load(const float* from) { return _mm512_loadu_ps(from); }
  static Float load_n(const float* from, size_t count) { return _mm512_maskz_loadu_ps(mask(count), from); }
  static void store(float* to, Float x) { _mm512_storeu_ps(to, x); }
  static void store_n(float* to, size_t count, Float x) { _mm512_mask_storeu_ps(to, mask(count), x); }
  static void store_past_cache(float* to, Float x) { _mm512_stream_ps(to, x); }
  static Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
  static Bits largest_magnitude(Bits so_far, Float x) {
    return _mm512_max_epi32(so_far, _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff)));
  }
  static bool is_finite(Bits magnitude) {
    return _mm512_cmpgt_epi32_mask(magnitude, _mm512_set1_epi32(0x7f7fffff)) == 0;
  }
};

}  // namespace

bool combine_avx512(const CombineArgs& args) { return combine_any<Lanes16>(args); }

}  // namespace textopia::cpu
