// Eight floats at a time for normal_math.h. Include only inside the unnamed namespace of a kernel file.

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

// Eight Philox4x32-10 counters base .. base + 7 of `draw`: words[k] holds output word k of each, in order.
// A 64-bit lane carries one counter; only the lower half of each lane means anything, so that the widening
// multiplication needs no shuffles.
inline void philox_words(uint64_t seed, uint64_t draw, uint64_t base, __m256i words[4]) {
  const __m256i multiplier0 = _mm256_set1_epi64x(0xD2511F53);
  const __m256i multiplier1 = _mm256_set1_epi64x(0xCD9E8D57);
  const __m256i first = _mm256_set1_epi64x(static_cast<long long>(base));
  // The order in which the final shuffle puts two registers side by side.
  __m256i counter[2] = {_mm256_add_epi64(first, _mm256_set_epi64x(5, 4, 1, 0)),
                        _mm256_add_epi64(first, _mm256_set_epi64x(7, 6, 3, 2))};
  __m256i x[2][4];
  for (int half = 0; half < 2; ++half) {
    x[half][0] = counter[half];
    x[half][1] = _mm256_srli_epi64(counter[half], 32);
    x[half][2] = _mm256_set1_epi64x(static_cast<long long>(draw));
    x[half][3] = _mm256_set1_epi64x(static_cast<long long>(draw >> 32));
  }
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const __m256i k0 = _mm256_set1_epi64x(key0), k1 = _mm256_set1_epi64x(key1);
    for (int half = 0; half < 2; ++half) {
      __m256i* v = x[half];
      __m256i product0 = _mm256_mul_epu32(v[0], multiplier0);
      __m256i product1 = _mm256_mul_epu32(v[2], multiplier1);
      v[0] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product1, 32), v[1]), k0);
      v[2] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product0, 32), v[3]), k1);
      v[1] = product1;
      v[3] = product0;
    }
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  for (int word = 0; word < 4; ++word)
    words[word] = _mm256_castps_si256(
        _mm256_shuffle_ps(_mm256_castsi256_ps(x[0][word]), _mm256_castsi256_ps(x[1][word]), 0x88));
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
