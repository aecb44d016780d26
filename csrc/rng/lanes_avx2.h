// Eight floats at a time for normal_math.h, four doubles for cuda_math.h. Include only inside the unnamed
// namespace of a kernel file.

struct Lanes8 {
  using Float = __m256;
  using Bits = __m256i;

  static Float value(float x) { return _mm256_set1_ps(x); }
  static Bits bits(uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
  static Bits as_bits(Float x) { return _mm256_castps_si256(x); }
  static Float as_float(Bits x) { return _mm256_castsi256_ps(x); }
  static Float to_float(Bits x) { return _mm256_cvtepi32_ps(x); }
  static Bits truncate(Float x) { return _mm256_cvttps_epi32(x); }
  static Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
  static Float sub(Float a, Float b) { return _mm256_sub_ps(a, b); }
  static Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  static Float fms(Float a, Float b, Float c) { return _mm256_fmsub_ps(a, b, c); }
  static Float fnma(Float a, Float b, Float c) { return _mm256_fnmadd_ps(a, b, c); }
  static Float sqrt(Float x) { return _mm256_sqrt_ps(x); }
  static Bits add_bits(Bits a, Bits b) { return _mm256_add_epi32(a, b); }
  static Bits sub_bits(Bits a, Bits b) { return _mm256_sub_epi32(a, b); }
  static Bits and_bits(Bits a, Bits b) { return _mm256_and_si256(a, b); }
  static Bits or_bits(Bits a, Bits b) { return _mm256_or_si256(a, b); }
  static Bits xor_bits(Bits a, Bits b) { return _mm256_xor_si256(a, b); }
  static Float xor_float(Float a, Bits b) { return _mm256_xor_ps(a, _mm256_castsi256_ps(b)); }
  template <int kCount>
  static Bits shift_left(Bits x) {
    return _mm256_slli_epi32(x, kCount);
  }
  template <int kCount>
  static Bits shift_right(Bits x) {
    return _mm256_srli_epi32(x, kCount);
  }
  template <int kCount>
  static Bits shift_right_signed(Bits x) {
    return _mm256_srai_epi32(x, kCount);
  }
  // All ones where x has the single bit `bit`.
  static Bits has_bits(Bits x, Bits bit) { return _mm256_cmpeq_epi32(_mm256_and_si256(x, bit), bit); }
  static Float select(Bits mask, Float if_set, Float if_clear) {
    return _mm256_blendv_ps(if_clear, if_set, _mm256_castsi256_ps(mask));
  }

  static Bits load(const uint32_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static void store(uint32_t* to, Bits x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), x); }
  static void store(float* to, Float x) { _mm256_storeu_ps(to, x); }
};

struct Lanes4Double {
  using Double = __m256d;
  using Bits = __m256i;

  static Double value(double x) { return _mm256_set1_pd(x); }
  static Bits bits(uint64_t x) { return _mm256_set1_epi64x(static_cast<long long>(x)); }
  static Bits as_bits(Double x) { return _mm256_castpd_si256(x); }
  static Double as_double(Bits x) { return _mm256_castsi256_pd(x); }
  static Double add(Double a, Double b) { return _mm256_add_pd(a, b); }
  static Double mul(Double a, Double b) { return _mm256_mul_pd(a, b); }
  static Double div(Double a, Double b) { return _mm256_div_pd(a, b); }
  static Double fma(Double a, Double b, Double c) { return _mm256_fmadd_pd(a, b, c); }
  static Double sqrt(Double x) { return _mm256_sqrt_pd(x); }
  static Bits add_bits(Bits a, Bits b) { return _mm256_add_epi64(a, b); }
  static Bits sub_bits(Bits a, Bits b) { return _mm256_sub_epi64(a, b); }
  static Bits and_bits(Bits a, Bits b) { return _mm256_and_si256(a, b); }
  static Bits or_bits(Bits a, Bits b) { return _mm256_or_si256(a, b); }
  static Double xor_double(Double a, Bits b) { return _mm256_xor_pd(a, _mm256_castsi256_pd(b)); }
  template <int kCount>
  static Bits shift_left(Bits x) {
    return _mm256_slli_epi64(x, kCount);
  }
  template <int kCount>
  static Bits shift_right(Bits x) {
    return _mm256_srli_epi64(x, kCount);
  }
  static Double select_odd(Bits x, Double if_odd, Double if_even) {
    return _mm256_blendv_pd(if_even, if_odd, _mm256_castsi256_pd(_mm256_slli_epi64(x, 63)));
  }
};

// The ten rounds of Philox4x32 on four counters per register, all registers in step. A 64-bit lane carries
// one word of one counter in its lower half; the upper half may hold anything, so that the widening
// multiplication needs no shuffles.
template <int kRegisters>
inline void philox_rounds(uint64_t seed, __m256i (&registers)[kRegisters][4]) {
  const __m256i multiplier0 = _mm256_set1_epi64x(0xD2511F53);
  const __m256i multiplier1 = _mm256_set1_epi64x(0xCD9E8D57);
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const __m256i k0 = _mm256_set1_epi64x(key0), k1 = _mm256_set1_epi64x(key1);
    for (__m256i(&x)[4] : registers) {
      const __m256i product0 = _mm256_mul_epu32(x[0], multiplier0);
      const __m256i product1 = _mm256_mul_epu32(x[2], multiplier1);
      x[0] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product1, 32), x[1]), k0);
      x[2] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product0, 32), x[3]), k1);
      x[1] = product1;
      x[3] = product0;
    }
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

// Counters (base .. base + 7, draw): words[k] holds output word k of each, in order.
inline void philox_words(uint64_t seed, uint64_t draw, uint64_t base, __m256i words[4]) {
  const __m256i first = _mm256_set1_epi64x(static_cast<long long>(base));
  // The order in which the shuffle below puts two registers side by side.
  const __m256i counters[2] = {_mm256_add_epi64(first, _mm256_set_epi64x(5, 4, 1, 0)),
                               _mm256_add_epi64(first, _mm256_set_epi64x(7, 6, 3, 2))};
  __m256i x[2][4];
  for (int half = 0; half < 2; ++half) {
    x[half][0] = counters[half];
    x[half][1] = _mm256_srli_epi64(counters[half], 32);
    x[half][2] = _mm256_set1_epi64x(static_cast<long long>(draw));
    x[half][3] = _mm256_set1_epi64x(static_cast<long long>(draw >> 32));
  }
  philox_rounds(seed, x);
  for (int word = 0; word < 4; ++word)
    words[word] = _mm256_castps_si256(
        _mm256_shuffle_ps(_mm256_castsi256_ps(x[0][word]), _mm256_castsi256_ps(x[1][word]), 0x88));
}

// Counters (draw, 0, element, 0) of four elements, one normal each.
inline void cuda_four(uint64_t seed, uint64_t draw, uint64_t element, float* out) {
  __m256i x[1][4] = {
      {_mm256_set1_epi64x(static_cast<long long>(draw)), _mm256_setzero_si256(),
       _mm256_add_epi64(_mm256_set1_epi64x(static_cast<long long>(element)), _mm256_set_epi64x(3, 2, 1, 0)),
       _mm256_setzero_si256()}};
  philox_rounds(seed, x);
  _mm_storeu_ps(out, _mm256_cvtpd_ps(cuda_normal<Lanes4Double>(x[0][0], x[0][1])));
}

// One block of torch and one group of Philox, eight lanes each.
inline void torch_block(const uint32_t* words, float* out) {
  __m256 first, second;
  torch_pair<Lanes8>(Lanes8::load(words), Lanes8::load(words + 8), first, second);
  Lanes8::store(out, first);
  Lanes8::store(out + 8, second);
}

inline void philox_group(uint64_t seed, uint64_t draw, uint64_t group, float* out) {
  __m256i words[4];
  philox_words(seed, draw, group * 8, words);
  for (int pair = 0; pair < 2; ++pair) {
    __m256 first, second;
    philox_pair<Lanes8>(words[2 * pair], words[2 * pair + 1], first, second);
    Lanes8::store(out + 16 * pair, first);
    Lanes8::store(out + 16 * pair + 8, second);
  }
}
