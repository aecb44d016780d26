// The normals of a CUDA generator from Philox words, over a `Lanes` type of float64. Include only inside the
// unnamed namespace of a kernel file.
//
// float64 with errors near 1e-14, so that after rounding to float32 the result is that of exact arithmetic
// but for one value in millions; own series and not the C library, so that every CPU agrees. A word sits in
// the lower half of a 64-bit lane.

// A non-negative integer below 2^52: as the mantissa of a number near 2^52.
template <typename Lanes>
inline typename Lanes::Double whole_number(typename Lanes::Bits bits) {
  using L = Lanes;
  return L::add(L::as_double(L::or_bits(bits, L::bits(0x4330000000000000u))), L::value(-0x1p52));
}

// ln(u) for 2^-33 <= u < 1.
template <typename Lanes>
inline typename Lanes::Double log_below_one(typename Lanes::Double u) {
  using L = Lanes;
  // u = m * 2^e with sqrt(1/2) <= m < sqrt(2); the bias of 64 keeps the exponent field positive.
  constexpr uint64_t kSqrtHalf = 0x3fe6a09e667f3bcdu, kBias = uint64_t{64} << 52;
  auto bits = L::as_bits(u);
  auto biased = L::template shift_right<52>(L::add_bits(bits, L::bits(kBias - kSqrtHalf)));
  auto e = L::add(whole_number<L>(biased), L::value(-64.0));
  auto m = L::as_double(L::add_bits(L::sub_bits(bits, L::template shift_left<52>(biased)), L::bits(kBias)));
  // ln m = 2 artanh(s), s = (m - 1) / (m + 1), |s| < 0.172.
  auto s = L::div(L::add(m, L::value(-1.0)), L::add(m, L::value(1.0)));
  auto z = L::mul(s, s);
  auto y = L::value(1.0 / 17);
  y = L::fma(y, z, L::value(1.0 / 15));
  y = L::fma(y, z, L::value(1.0 / 13));
  y = L::fma(y, z, L::value(1.0 / 11));
  y = L::fma(y, z, L::value(1.0 / 9));
  y = L::fma(y, z, L::value(1.0 / 7));
  y = L::fma(y, z, L::value(1.0 / 5));
  y = L::fma(y, z, L::value(1.0 / 3));
  y = L::fma(y, z, L::value(1.0));
  return L::fma(e, L::value(0.6931471805599453), L::mul(L::add(s, s), y));
}

// sin(2 pi (word + 1/2) / 2^32). The nearest quarter turn is found in integers, so that nothing is lost.
template <typename Lanes>
inline typename Lanes::Double sine_of_turn(typename Lanes::Bits word) {
  using L = Lanes;
  auto quarter = L::template shift_right<30>(L::add_bits(word, L::bits(0x20000000u)));
  auto steps = L::fma(whole_number<L>(quarter), L::value(-0x1p30), whole_number<L>(word));
  auto x = L::mul(L::add(steps, L::value(0.5)), L::value(6.283185307179586 * 0x1p-32));
  auto z = L::mul(x, x);

  auto s = L::value(1.0 / 6227020800.0);  // the Taylor series, |x| <= pi / 4
  s = L::fma(s, z, L::value(-1.0 / 39916800.0));
  s = L::fma(s, z, L::value(1.0 / 362880.0));
  s = L::fma(s, z, L::value(-1.0 / 5040.0));
  s = L::fma(s, z, L::value(1.0 / 120.0));
  s = L::fma(s, z, L::value(-1.0 / 6.0));
  s = L::fma(L::mul(s, z), x, x);

  auto c = L::value(-1.0 / 87178291200.0);
  c = L::fma(c, z, L::value(1.0 / 479001600.0));
  c = L::fma(c, z, L::value(-1.0 / 3628800.0));
  c = L::fma(c, z, L::value(1.0 / 40320.0));
  c = L::fma(c, z, L::value(-1.0 / 720.0));
  c = L::fma(c, z, L::value(1.0 / 24.0));
  c = L::fma(c, z, L::value(-0.5));
  c = L::fma(c, z, L::value(1.0));

  // Odd quarters take the cosine; the second and third are negative.
  auto sign = L::template shift_left<62>(L::and_bits(quarter, L::bits(2)));
  return L::xor_double(L::select_odd(quarter, c, s), sign);
}

// The first Box-Muller value of two words: u = (first + 1/2) / 2^32, sqrt(-2 ln u) sin(2 pi (second + 1/2) /
// 2^32).
template <typename Lanes>
inline typename Lanes::Double cuda_normal(typename Lanes::Bits first, typename Lanes::Bits second) {
  using L = Lanes;
  const auto low = L::bits(0xffffffffu);
  auto u = L::fma(whole_number<L>(L::and_bits(first, low)), L::value(0x1p-32), L::value(0x1p-33));
  auto radius = L::sqrt(L::mul(L::value(-2.0), log_below_one<L>(u)));
  return L::mul(radius, sine_of_turn<L>(L::and_bits(second, low)));
}
