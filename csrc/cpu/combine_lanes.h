// The fused update over a `Lanes` type. Include only inside the unnamed namespace of a kernel file, so that
// each ISA keeps its own copy. Lanes has: Float, Bits, kWidth, value, zero_bits, load, load_n, store,
// store_n, store_past_cache, mul, add, largest_magnitude (running maximum of the bits without sign) and
// is_finite.

// Outputs larger than the caches are written past them when they are not read here: an ordinary store would
// first fetch the line that it overwrites.
enum class Store { kOrdinary, kPastCache };

// Bytes read and written by one call from which on its outputs would not survive in a last-level cache
// anyway. Measured with 2 to 5 sources (one core of a server with 32 MB): 1.3 to 1.5 times as fast from 25 MB
// to 134 MB.
constexpr size_t kPastCacheBytes = size_t{32} << 20;

template <typename Lanes, int kSources>
inline typename Lanes::Float weighted_sum(const CombineArgs& args, const typename Lanes::Float* weights,
                                          size_t i, size_t lane_count) {
  using L = Lanes;
  // kSources == 0: as many as the arguments say.
  const int source_count = kSources > 0 ? kSources : args.source_count;
  auto load = [&](int k) {
    const float* from = args.sources[k] + i;
    return lane_count == L::kWidth ? L::load(from) : L::load_n(from, lane_count);
  };
  auto sum = L::mul(weights[0], load(0));
  for (int k = 1; k < source_count; ++k) sum = L::add(sum, L::mul(weights[k], load(k)));
  return sum;
}

template <typename Lanes, int kSources, int kOutputs, Store kStore>
bool combine_fixed(const CombineArgs& arguments) {
  using L = Lanes;
  const CombineArgs args =
      arguments;  // a local copy: the stores cannot alias it, the pointers stay in registers
  const int source_count = kSources > 0 ? kSources : args.source_count;
  typename L::Float weights[kMaxSources], scales[kOutputs];
  weights[0] = L::value(args.weights[0]);
  for (int k = 1; k < source_count; ++k) weights[k] = L::value(args.weights[k]);
  for (int k = 0; k < kOutputs; ++k) scales[k] = L::value(args.scales[k]);
  auto magnitude = L::zero_bits();

  auto part = [&](size_t i, size_t lane_count) {
    auto sum = weighted_sum<L, kSources>(args, weights, i, lane_count);
    magnitude = L::largest_magnitude(magnitude, sum);
    for (int k = 0; k < kOutputs; ++k) L::store_n(args.outputs[k] + i, lane_count, L::mul(scales[k], sum));
  };

  size_t i = 0;
  if (kStore == Store::kPastCache) {
    // Such stores want addresses that are multiples of their size; the caller saw to it that one head fits
    // all.
    constexpr size_t kBytes = L::kWidth * sizeof(float);
    const size_t past = reinterpret_cast<uintptr_t>(args.outputs[0]) % kBytes;
    if (past != 0) {
      i = (kBytes - past) / sizeof(float);
      part(0, i);
    }
  }
  for (; i + L::kWidth <= args.count; i += L::kWidth) {
    auto sum = weighted_sum<L, kSources>(args, weights, i, L::kWidth);
    magnitude = L::largest_magnitude(magnitude, sum);
    for (int k = 0; k < kOutputs; ++k) {
      auto scaled = L::mul(scales[k], sum);
      if (kStore == Store::kPastCache)
        L::store_past_cache(args.outputs[k] + i, scaled);
      else
        L::store(args.outputs[k] + i, scaled);
    }
  }
  if (i < args.count) part(i, args.count - i);
  if (kStore == Store::kPastCache) _mm_sfence();
  return L::is_finite(magnitude);
}

// True when the outputs are large, are no sources, and can share one aligned head.
template <typename Lanes>
bool is_past_cache(const CombineArgs& args) {
  constexpr size_t kBytes = Lanes::kWidth * sizeof(float);
  if (args.count * sizeof(float) * static_cast<size_t>(args.source_count + args.output_count) <
      kPastCacheBytes)
    return false;
  const auto head = reinterpret_cast<uintptr_t>(args.outputs[0]) % kBytes;
  if (head % sizeof(float) != 0) return false;
  for (int k = 0; k < args.output_count; ++k) {
    if (reinterpret_cast<uintptr_t>(args.outputs[k]) % kBytes != head) return false;
    for (int s = 0; s < args.source_count; ++s)
      if (args.sources[s] == args.outputs[k]) return false;
  }
  return true;
}

template <typename Lanes, Store kStore, int kSources>
bool combine_outputs(const CombineArgs& args) {
  switch (args.output_count) {
    case 1: return combine_fixed<Lanes, kSources, 1, kStore>(args);
    case 2: return combine_fixed<Lanes, kSources, 2, kStore>(args);
    default: return combine_fixed<Lanes, kSources, 3, kStore>(args);
  }
}

template <typename Lanes, Store kStore>
bool combine_sources(const CombineArgs& args) {
  switch (args.source_count) {
    case 1: return combine_outputs<Lanes, kStore, 1>(args);
    case 2: return combine_outputs<Lanes, kStore, 2>(args);
    case 3: return combine_outputs<Lanes, kStore, 3>(args);
    case 4: return combine_outputs<Lanes, kStore, 4>(args);
    case 5: return combine_outputs<Lanes, kStore, 5>(args);
    case 6: return combine_outputs<Lanes, kStore, 6>(args);
    default: return combine_outputs<Lanes, kStore, 0>(args);
  }
}

template <typename Lanes>
bool combine_any(const CombineArgs& args) {
  return is_past_cache<Lanes>(args) ? combine_sources<Lanes, Store::kPastCache>(args)
                                    : combine_sources<Lanes, Store::kOrdinary>(args);
}
