// Conversions for AVX2 and F16C, eight elements at a time; a short last part goes through a padded copy.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/convert_kernels.h"

namespace textopia::cpu {
namespace {

struct FloatToHalf {
  static void eight(const float* source, uint16_t* target) {
    const __m128i halves =
        _mm256_cvtps_ph(_mm256_loadu_ps(source), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(target), halves);
  }
};

struct HalfToFloat {
  static void eight(const uint16_t* source, float* target) {
    _mm256_storeu_ps(target, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source))));
  }
};

struct FloatToBfloat16 {
  static void eight(const float* source, uint16_t* target) {
    const __m256 values = _mm256_loadu_ps(source);
    const __m256i bits = _mm256_castps_si256(values);
    const __m256i upper = _mm256_srli_epi32(bits, 16);
    const __m256i half_way =
        _mm256_add_epi32(_mm256_set1_epi32(0x7fff), _mm256_and_si256(upper, _mm256_set1_epi32(1)));
    const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, half_way), 16);
    const __m256i quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(values, values, _CMP_UNORD_Q));
    const __m256i words = _mm256_blendv_epi8(rounded, quiet, is_nan);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(target), _mm256_castsi256_si128(packed));
  }
};

struct Bfloat16ToFloat {
  static void eight(const uint16_t* source, float* target) {
    const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
    _mm256_storeu_ps(target, _mm256_castsi256_ps(_mm256_slli_epi32(words, 16)));
  }
};

template <typename Conversion, typename Source, typename Target>
void convert(const Source* source, Target* target, size_t count) {
  size_t i = 0;
  for (; i + 8 <= count; i += 8) Conversion::eight(source + i, target + i);
  if (i == count) return;
  Source from[8] = {};
  Target to[8];
  for (size_t k = 0; k < count - i; ++k) from[k] = source[i + k];
  Conversion::eight(from, to);
  for (size_t k = 0; k < count - i; ++k) target[i + k] = to[k];
}

constexpr ConvertKernels kKernels = {
    convert<FloatToHalf, float, uint16_t>,
    convert<HalfToFloat, uint16_t, float>,
    convert<FloatToBfloat16, float, uint16_t>,
    convert<Bfloat16ToFloat, uint16_t, float>,
};

}  // namespace

const ConvertKernels& convert_kernels_avx2() { return kKernels; }

}  // namespace textopia::cpu
