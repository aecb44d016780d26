// Sixteen floats at a time, for kernels over bfloat16. Include only inside the unnamed namespace of a kernel
// file, after <immintrin.h>, so that each instruction set keeps its own copy.
#pragma once

inline int smaller(int a, int b) { return a < b ? a : b; }
inline int larger(int a, int b) { return a > b ? a : b; }

inline __mmask16 first_lanes(int64_t count) {
  return count >= 16 ? __mmask16{0xffff} : static_cast<__mmask16>((1u << (count > 0 ? count : 0)) - 1);
}

inline __m512 widen(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// Whole registers go without the mask: some CPUs run masked 16-bit stores in microcode.
constexpr __mmask16 kAllLanes = 0xffff;

inline __m512 load_bf16(const uint16_t* from, __mmask16 lanes) {
  if (lanes == kAllLanes) return widen(_mm256_loadu_si256((const __m256i*)from));
  return widen(_mm256_maskz_loadu_epi16(lanes, from));
}

// Round to nearest even. VCVTNEPS2BF16 flushes denormals, which no activation has a use for.
inline void store_bf16(uint16_t* to, __mmask16 lanes, __m512 x) {
  const auto bits = (__m256i)_mm512_cvtneps_pbh(x);
  if (lanes == kAllLanes)
    _mm256_storeu_si256((__m256i*)to, bits);
  else
    _mm256_mask_storeu_epi16(to, lanes, bits);
}

// 2^x for x <= 127: relative error 4e-6 (degree 5 on a fraction of [-1/2, 1/2]); exactly 0 below -150 and for
// -inf.
inline __m512 exp2_lanes(__m512 x) {
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f =
      _mm512_sub_ps(_mm512_max_ps(x, _mm512_set1_ps(-200.0f)), _mm512_max_ps(whole, _mm512_set1_ps(-200.0f)));
  __m512 p = _mm512_set1_ps(0.00134109f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.00961812f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.0555034f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.24022651f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.69314718f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, whole);
}

inline __m512 sigmoid_lanes(__m512 x) {
  const __m512 e =
      exp2_lanes(_mm512_min_ps(_mm512_mul_ps(x, _mm512_set1_ps(-1.44269504f)), _mm512_set1_ps(127.0f)));
  return _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_add_ps(_mm512_set1_ps(1.0f), e));
}

// x * sigmoid(x); -inf gives 0 only by its limit, and NaN here as in IEEE arithmetic.
inline __m512 silu_lanes(__m512 x) { return _mm512_mul_ps(x, sigmoid_lanes(x)); }

// x * Phi(x), Phi by Abramowitz and Stegun 7.1.26 (absolute error of erf 1.5e-7).
inline __m512 gelu_lanes(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.70710678f));
  const __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(z, _mm512_set1_ps(0.3275911f), one));
  __m512 p = _mm512_set1_ps(1.061405429f);
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-1.453152027f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(1.421413741f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-0.284496736f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0.254829592f));
  const __m512 tail = exp2_lanes(_mm512_mul_ps(_mm512_mul_ps(z, z), _mm512_set1_ps(-1.44269504f)));
  p = _mm512_mul_ps(_mm512_mul_ps(p, t), tail);  // erfc(|z|)
  const __m512 half = _mm512_mul_ps(x, _mm512_set1_ps(0.5f));
  return _mm512_add_ps(half, _mm512_fnmadd_ps(_mm512_abs_ps(half), p, _mm512_abs_ps(half)));
}

inline __m512 activate_lanes(Activation activation, __m512 x) {
  switch (activation) {
    case Activation::kSilu: return silu_lanes(x);
    case Activation::kGelu: return gelu_lanes(x);
    case Activation::kQuickGelu:
      return _mm512_mul_ps(x, sigmoid_lanes(_mm512_mul_ps(x, _mm512_set1_ps(1.702f))));
    case Activation::kNone: break;
  }
  return x;
}
