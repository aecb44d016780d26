// The fused update for AVX2, eight floats at a time.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/combine_kernels.h"

namespace textopia::cpu {
namespace {

#include "cpu/combine_lanes.h"

struct Lanes8 {
  using Float = __m256;
  using Bits = __m256i;
  static constexpr size_t kWidth = 8;

  static __m256i mask(size_t count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static Float value(float x) { return _mm256_set1_ps(x); }
  static Bits zero_bits() { return _mm256_setzero_si256(); }
  static Float load(const float* from) { return _mm256_loadu_ps(from); }
  static Float load_n(const float* from, size_t count) { return _mm256_maskload_ps(from, mask(count)); }
  static void store(float* to, Float x) { _mm256_storeu_ps(to, x); }
  static void store_n(float* to, size_t count, Float x) { _mm256_maskstore_ps(to, mask(count), x); }
  static void store_past_cache(float* to, Float x) { _mm256_stream_ps(to, x); }
  static Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
  static Bits largest_magnitude(Bits so_far, Float x) {
    return _mm256_max_epi32(so_far, _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff)));
  }
  static bool is_finite(Bits magnitude) {
    return _mm256_testz_si256(_mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7f7fffff)),
                              _mm256_set1_epi32(-1));
  }
};

}  // namespace

bool combine_avx2(const CombineArgs& args) { return combine_any<Lanes8>(args); }

}  // namespace textopia::cpu
