// The normalisations for AVX-512 with conversions to bfloat16.
#include <immintrin.h>

#include <cstdint>

#include "cpu/matrix_kernels.h"
#include "cpu/norm_kernels.h"

namespace textopia::cpu {
namespace {

#include "cpu/lanes_bf16_avx512.h"

void layer_rows(const uint16_t* x, int64_t rows, int64_t channels, const float* gamma, const float* beta,
                float epsilon, uint16_t* out) {
  const float share = 1.0f / static_cast<float>(channels);
  for (int64_t r = 0; r < rows; ++r, x += channels, out += channels) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t c = 0; c < channels; c += 16)
      sum = _mm512_add_ps(sum, load_bf16(x + c, first_lanes(channels - c)));
    const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) * share);
    __m512 squares = _mm512_setzero_ps();
    for (int64_t c = 0; c < channels; c += 16) {
      const __mmask16 lanes = first_lanes(channels - c);
      const __m512 d = _mm512_maskz_sub_ps(lanes, load_bf16(x + c, lanes), mean);
      squares = _mm512_fmadd_ps(d, d, squares);
    }
    const __m512 variance = _mm512_set1_ps(_mm512_reduce_add_ps(squares) * share + epsilon);
    const __m512 inverse = _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_sqrt_ps(variance));
    for (int64_t c = 0; c < channels; c += 16) {
      const __mmask16 lanes = first_lanes(channels - c);
      const __m512 d = _mm512_mul_ps(_mm512_sub_ps(load_bf16(x + c, lanes), mean), inverse);
      store_bf16(out + c, lanes,
                 _mm512_fmadd_ps(d, _mm512_maskz_loadu_ps(lanes, gamma + c),
                                 _mm512_maskz_loadu_ps(lanes, beta + c)));
    }
  }
}

void channel_sums(const uint16_t* x, int64_t rows, int64_t channels, const uint16_t* origin, float* sums,
                  float* squares) {
  for (int64_t c = 0; c < channels; c += 16) {
    const __mmask16 lanes = first_lanes(channels - c);
    _mm512_mask_storeu_ps(sums + c, lanes, _mm512_setzero_ps());
    _mm512_mask_storeu_ps(squares + c, lanes, _mm512_setzero_ps());
  }
  constexpr int64_t kRows = 4;  // together, so that the sums are read and written once for all of them
  for (int64_t r = 0; r < rows; r += kRows) {
    const int64_t some = rows - r < kRows ? rows - r : kRows;
    for (int64_t c = 0; c < channels; c += 16) {
      const __mmask16 lanes = first_lanes(channels - c);
      const __m512 from = load_bf16(origin + c, lanes);
      __m512 sum = _mm512_maskz_loadu_ps(lanes, sums + c), square = _mm512_maskz_loadu_ps(lanes, squares + c);
      for (int64_t i = 0; i < some; ++i) {
        const __m512 d = _mm512_sub_ps(load_bf16(x + (r + i) * channels + c, lanes), from);
        sum = _mm512_add_ps(sum, d);
        square = _mm512_fmadd_ps(d, d, square);
      }
      _mm512_mask_storeu_ps(sums + c, lanes, sum);
      _mm512_mask_storeu_ps(squares + c, lanes, square);
    }
  }
}

template <bool kSilu>
void scale_rows_fixed(const uint16_t* x, int64_t rows, int64_t channels, const float* scale,
                      const float* shift, uint16_t* out) {
  for (int64_t r = 0; r < rows; ++r, x += channels, out += channels) {
    for (int64_t c = 0; c < channels; c += 16) {
      const __mmask16 lanes = first_lanes(channels - c);
      const __m512 y = _mm512_fmadd_ps(load_bf16(x + c, lanes), _mm512_maskz_loadu_ps(lanes, scale + c),
                                       _mm512_maskz_loadu_ps(lanes, shift + c));
      store_bf16(out + c, lanes, kSilu ? silu_lanes(y) : y);
    }
  }
}

void scale_rows(const uint16_t* x, int64_t rows, int64_t channels, const float* scale, const float* shift,
                bool has_silu, uint16_t* out) {
  (has_silu ? scale_rows_fixed<true> : scale_rows_fixed<false>)(x, rows, channels, scale, shift, out);
}

}  // namespace

const NormKernels& norm_kernels_avx512_bf16() {
  static constexpr NormKernels kKernels = {layer_rows, channel_sums, scale_rows};
  return kKernels;
}

}  // namespace textopia::cpu
