// Elementary functions of the normal kernels, written once over a `Lanes` type (scalar, 8 or 16 floats wide).
// Include only inside the unnamed namespace of a kernel file, so that each ISA keeps its own copy.
//
// log and sincos follow Cephes (S. Moshier, netlib: logf, sinf, cosf): one polynomial on [sqrt(1/2),
// sqrt(2)), and octant reduction with pi/4 in three parts. `fma`/`fnma` mark the places where torch's build
// rounds once; moving one of them changes last bits and with them the equality to torch.randn.

// ln(u) for normal 0 < u <= 1.
template <typename Lanes>
inline typename Lanes::Float log_unit(typename Lanes::Float u) {
  using L = Lanes;
  // 0x3f3504f3 is sqrt(1/2): the subtraction borrows from the exponent exactly when the mantissa is below it.
  auto bits = L::as_bits(u);
  auto exponent = L::template shift_right_signed<23>(L::sub_bits(bits, L::bits(0x3f3504f3u)));
  auto e = L::to_float(exponent);
  auto x = L::sub(L::as_float(L::sub_bits(bits, L::template shift_left<23>(exponent))), L::value(1.0f));
  auto x_squared = L::mul(x, x);
  auto y = L::value(7.0376836292e-2f);
  y = L::fma(y, x, L::value(-1.1514610310e-1f));
  y = L::fma(y, x, L::value(1.1676998740e-1f));
  y = L::fma(y, x, L::value(-1.2420140846e-1f));
  y = L::fma(y, x, L::value(1.4249322787e-1f));
  y = L::fma(y, x, L::value(-1.6668057665e-1f));
  y = L::fma(y, x, L::value(2.0000714765e-1f));
  y = L::fma(y, x, L::value(-2.4999993993e-1f));
  y = L::fma(y, x, L::value(3.3333331174e-1f));
  y = L::fma(L::mul(y, x), x_squared, L::mul(e, L::value(-2.12194440e-4f)));  // ln 2 in two parts
  y = L::fnma(x_squared, L::value(0.5f), y);
  return L::fma(e, L::value(0.693359375f), L::add(x, y));
}

// sin and cos of 0 <= angle < 8192.
template <typename Lanes>
inline void sincos_positive(typename Lanes::Float angle, typename Lanes::Float& sine,
                            typename Lanes::Float& cosine) {
  using L = Lanes;
  auto octant = L::truncate(L::mul(angle, L::value(1.27323954473516f)));  // 4 / pi
  octant = L::and_bits(L::add_bits(octant, L::bits(1)), L::bits(~1u));
  auto count = L::to_float(octant);
  auto x = L::fma(count, L::value(-0.78515625f), angle);
  x = L::fma(count, L::value(-2.4187564849853515625e-4f), x);
  x = L::fma(count, L::value(-3.77489497744594108e-8f), x);
  auto z = L::mul(x, x);

  auto c = L::value(2.443315711809948e-5f);
  c = L::fma(c, z, L::value(-1.388731625493765e-3f));
  c = L::fma(c, z, L::value(4.166664568298827e-2f));
  c = L::fms(L::mul(c, z), z, L::mul(z, L::value(0.5f)));
  c = L::add(c, L::value(1.0f));

  auto s = L::value(-1.9515295891e-4f);
  s = L::fma(s, z, L::value(8.3321608736e-3f));
  s = L::fma(s, z, L::value(-1.6666654611e-1f));
  s = L::fma(L::mul(s, z), x, x);

  // Octants 2, 6 swap the two polynomials; 4, 6 negate the sine; 2, 4 negate the cosine.
  auto sine_sign = L::template shift_left<29>(L::and_bits(octant, L::bits(4)));
  auto cosine_sign = L::template shift_left<29>(L::and_bits(L::add_bits(octant, L::bits(2)), L::bits(4)));
  auto is_swapped = L::has_bits(octant, L::bits(2));
  sine = L::xor_float(L::select(is_swapped, c, s), sine_sign);
  cosine = L::xor_float(L::select(is_swapped, s, c), cosine_sign);
}

// Box-Muller: two independent normals from 0 < u1 <= 1 and 0 <= u2 < 1.
template <typename Lanes>
inline void box_muller(typename Lanes::Float u1, typename Lanes::Float u2, typename Lanes::Float& first,
                       typename Lanes::Float& second) {
  using L = Lanes;
  auto radius = L::sqrt(L::mul(L::value(-2.0f), log_unit<L>(u1)));
  typename L::Float sine, cosine;
  sincos_positive<L>(L::mul(L::value(6.283185307179586f), u2), sine, cosine);
  // The addition of zero turns -0 into +0, as torch's "mean + std * value" does.
  first = L::add(L::mul(radius, cosine), L::value(0.0f));
  second = L::add(L::mul(radius, sine), L::value(0.0f));
}

// Two vectors of words of MT19937's recurrence to normals: 24-bit uniforms, u1 = 1 - a.
template <typename Lanes>
inline void torch_pair(typename Lanes::Bits first_words, typename Lanes::Bits second_words,
                       typename Lanes::Float& first, typename Lanes::Float& second) {
  using L = Lanes;
  auto uniform = [](typename L::Bits words) {
    words = L::xor_bits(words, L::template shift_right<11>(words));
    words = L::xor_bits(words, L::and_bits(L::template shift_left<7>(words), L::bits(0x9d2c5680u)));
    words = L::xor_bits(words, L::and_bits(L::template shift_left<15>(words), L::bits(0xefc60000u)));
    words = L::xor_bits(words, L::template shift_right<18>(words));
    return L::mul(L::to_float(L::and_bits(words, L::bits(0x00ffffffu))), L::value(0x1p-24f));
  };
  box_muller<L>(L::sub(L::value(1.0f), uniform(first_words)), uniform(second_words), first, second);
}

// Two vectors of Philox words to normals. u1 has 31 bits and is at least 2^-32, which reaches 6.66 standard
// deviations; u2 has 24 bits.
template <typename Lanes>
inline void philox_pair(typename Lanes::Bits first_words, typename Lanes::Bits second_words,
                        typename Lanes::Float& first, typename Lanes::Float& second) {
  using L = Lanes;
  auto u1 =
      L::fma(L::to_float(L::template shift_right<1>(first_words)), L::value(0x1p-31f), L::value(0x1p-32f));
  auto u2 = L::mul(L::to_float(L::template shift_right<8>(second_words)), L::value(0x1p-24f));
  box_muller<L>(u1, u2, first, second);
}

// One step of the recurrence: the upper bit of `word` and the rest of `next`, twisted into `far`.
template <typename Lanes>
inline typename Lanes::Bits mt_step(typename Lanes::Bits word, typename Lanes::Bits next,
                                    typename Lanes::Bits far) {
  using L = Lanes;
  auto joined = L::or_bits(L::and_bits(word, L::bits(0x80000000u)), L::and_bits(next, L::bits(0x7fffffffu)));
  auto odd = L::sub_bits(L::bits(0), L::and_bits(next, L::bits(1)));
  auto twisted = L::xor_bits(L::template shift_right<1>(joined), L::and_bits(odd, L::bits(0x9908b0dfu)));
  return L::xor_bits(far, twisted);
}
