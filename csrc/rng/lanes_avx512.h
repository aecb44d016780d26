// Sixteen floats at a time for normal_math.h, eight doubles for cuda_math.h. Include only inside the unnamed
// namespace of a kernel file, after lanes_avx2.h.

struct Lanes16 {
  using Float = __m512;
  using Bits = __m512i;

  static Float value(float x) { return _mm512_set1_ps(x); }
  static Bits bits(uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
  static Bits as_bits(Float x) { return _mm512_castps_si512(x); }
  static Float as_float(Bits x) { return _mm512_castsi512_ps(x); }
  static Float to_float(Bits x) { return _mm512_cvtepi32_ps(x); }
  static Bits truncate(Float x) { return _mm512_cvttps_epi32(x); }
  static Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
  static Float sub(Float a, Float b) { return _mm512_sub_ps(a, b); }
  static Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  static Float fms(Float a, Float b, Float c) { return _mm512_fmsub_ps(a, b, c); }
  static Float fnma(Float a, Float b, Float c) { return _mm512_fnmadd_ps(a, b, c); }
  static Float sqrt(Float x) { return _mm512_sqrt_ps(x); }
  static Bits add_bits(Bits a, Bits b) { return _mm512_add_epi32(a, b); }
  static Bits sub_bits(Bits a, Bits b) { return _mm512_sub_epi32(a, b); }
  static Bits and_bits(Bits a, Bits b) { return _mm512_and_si512(a, b); }
  static Bits or_bits(Bits a, Bits b) { return _mm512_or_si512(a, b); }
  static Bits xor_bits(Bits a, Bits b) { return _mm512_xor_si512(a, b); }
  static Float xor_float(Float a, Bits b) { return _mm512_xor_ps(a, _mm512_castsi512_ps(b)); }
  template <int kCount>
  static Bits shift_left(Bits x) {
    return _mm512_slli_epi32(x, kCount);
  }
  template <int kCount>
  static Bits shift_right(Bits x) {
    return _mm512_srli_epi32(x, kCount);
  }
  template <int kCount>
  static Bits shift_right_signed(Bits x) {
    return _mm512_srai_epi32(x, kCount);
  }
  static __mmask16 has_bits(Bits x, Bits bit) { return _mm512_test_epi32_mask(x, bit); }
  static Float select(__mmask16 mask, Float if_set, Float if_clear) {
    return _mm512_mask_blend_ps(mask, if_clear, if_set);
  }

  static Bits load(const uint32_t* from) { return _mm512_loadu_si512(from); }
  static void store(uint32_t* to, Bits x) { _mm512_storeu_si512(to, x); }

  // Eight lanes from or to each of two places.
  static Bits load_halves(const uint32_t* low, const uint32_t* high) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(Lanes8::load(low)), Lanes8::load(high), 1);
  }
  static void store_halves(float* low, float* high, Float x) {
    _mm256_storeu_ps(low, _mm512_castps512_ps256(x));
    _mm256_storeu_ps(high, _mm512_extractf32x8_ps(x, 1));
  }
};

struct Lanes8Double {
  using Double = __m512d;
  using Bits = __m512i;

  static Double value(double x) { return _mm512_set1_pd(x); }
  static Bits bits(uint64_t x) { return _mm512_set1_epi64(static_cast<long long>(x)); }
  static Bits as_bits(Double x) { return _mm512_castpd_si512(x); }
  static Double as_double(Bits x) { return _mm512_castsi512_pd(x); }
  static Double add(Double a, Double b) { return _mm512_add_pd(a, b); }
  static Double mul(Double a, Double b) { return _mm512_mul_pd(a, b); }
  static Double div(Double a, Double b) { return _mm512_div_pd(a, b); }
  static Double fma(Double a, Double b, Double c) { return _mm512_fmadd_pd(a, b, c); }
  static Double sqrt(Double x) { return _mm512_sqrt_pd(x); }
  static Bits add_bits(Bits a, Bits b) { return _mm512_add_epi64(a, b); }
  static Bits sub_bits(Bits a, Bits b) { return _mm512_sub_epi64(a, b); }
  static Bits and_bits(Bits a, Bits b) { return _mm512_and_si512(a, b); }
  static Bits or_bits(Bits a, Bits b) { return _mm512_or_si512(a, b); }
  static Double xor_double(Double a, Bits b) { return _mm512_xor_pd(a, _mm512_castsi512_pd(b)); }
  template <int kCount>
  static Bits shift_left(Bits x) {
    return _mm512_slli_epi64(x, kCount);
  }
  template <int kCount>
  static Bits shift_right(Bits x) {
    return _mm512_srli_epi64(x, kCount);
  }
  static Double select_odd(Bits x, Double if_odd, Double if_even) {
    return _mm512_mask_blend_pd(_mm512_test_epi64_mask(x, _mm512_set1_epi64(1)), if_even, if_odd);
  }
};

// philox_rounds for eight counters per register.
template <int kRegisters>
inline void philox_rounds(uint64_t seed, __m512i (&registers)[kRegisters][4]) {
  const __m512i multiplier0 = _mm512_set1_epi64(0xD2511F53);
  const __m512i multiplier1 = _mm512_set1_epi64(0xCD9E8D57);
  constexpr int kXor3 = 0x96;
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const __m512i k0 = _mm512_set1_epi64(key0), k1 = _mm512_set1_epi64(key1);
    for (__m512i(&x)[4] : registers) {
      const __m512i product0 = _mm512_mul_epu32(x[0], multiplier0);
      const __m512i product1 = _mm512_mul_epu32(x[2], multiplier1);
      x[0] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(product1, 32), x[1], k0, kXor3);
      x[2] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(product0, 32), x[3], k1, kXor3);
      x[1] = product1;
      x[3] = product0;
    }
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

// philox_words for sixteen counters base .. base + 15.
inline void philox_words(uint64_t seed, uint64_t draw, uint64_t base, __m512i words[4]) {
  const __m512i first = _mm512_set1_epi64(static_cast<long long>(base));
  const __m512i counters[2] = {_mm512_add_epi64(first, _mm512_set_epi64(13, 12, 9, 8, 5, 4, 1, 0)),
                               _mm512_add_epi64(first, _mm512_set_epi64(15, 14, 11, 10, 7, 6, 3, 2))};
  __m512i x[2][4];
  for (int half = 0; half < 2; ++half) {
    x[half][0] = counters[half];
    x[half][1] = _mm512_srli_epi64(counters[half], 32);
    x[half][2] = _mm512_set1_epi64(static_cast<long long>(draw));
    x[half][3] = _mm512_set1_epi64(static_cast<long long>(draw >> 32));
  }
  philox_rounds(seed, x);
  for (int word = 0; word < 4; ++word)
    words[word] = _mm512_castps_si512(
        _mm512_shuffle_ps(_mm512_castsi512_ps(x[0][word]), _mm512_castsi512_ps(x[1][word]), 0x88));
}

inline void cuda_eight(uint64_t seed, uint64_t draw, uint64_t element, float* out) {
  __m512i x[1][4] = {{_mm512_set1_epi64(static_cast<long long>(draw)), _mm512_setzero_si512(),
                      _mm512_add_epi64(_mm512_set1_epi64(static_cast<long long>(element)),
                                       _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0)),
                      _mm512_setzero_si512()}};
  philox_rounds(seed, x);
  _mm256_storeu_ps(out, _mm512_cvtpd_ps(cuda_normal<Lanes8Double>(x[0][0], x[0][1])));
}

inline void torch_two_blocks(const uint32_t* words, float* out) {
  __m512 first, second;
  torch_pair<Lanes16>(Lanes16::load_halves(words, words + 16), Lanes16::load_halves(words + 8, words + 24),
                      first, second);
  Lanes16::store_halves(out, out + 16, first);
  Lanes16::store_halves(out + 8, out + 24, second);
}

inline void philox_two_groups(uint64_t seed, uint64_t draw, uint64_t group, float* out) {
  __m512i words[4];
  philox_words(seed, draw, group * 8, words);
  for (int pair = 0; pair < 2; ++pair) {
    __m512 first, second;
    philox_pair<Lanes16>(words[2 * pair], words[2 * pair + 1], first, second);
    Lanes16::store_halves(out + 16 * pair, out + 16 * pair + 32, first);
    Lanes16::store_halves(out + 16 * pair + 8, out + 16 * pair + 40, second);
  }
}
