// torch.randn of a CPU generator, float32. Facts found by comparing with torch 2.13 (tests/rng).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <string>

#include "base/error.h"
#include "rng/noise.h"
#include "rng/normal.h"
#include "rng/stream.h"

namespace textopia::rng {
namespace {

// What torch.Generator.get_state holds: the engine as torch keeps it, one word per 64 bits, and the normal
// that waits.
struct TorchState {
  uint64_t seed;
  int32_t left;  // words before the next refill, and one
  int32_t is_seeded;
  uint64_t next;  // words used of the present 624; 0 only before the first refill
  uint64_t words[kMtWords];
  double unused_x;
  double second;
  double unused_rho;
  int32_t has_second;
  char rest[12];
};
static_assert(sizeof(TorchState) == 5056);

// One torch.Generator: MT19937 (Matsumoto and Nishimura 1998) plus the second normal of a small draw.
class TorchGenerator {
 public:
  TorchGenerator(uint64_t seed, const NormalKernels& kernels) : kernels_(kernels) {
    uint32_t* state = words_ + kBlocks * kMtWords;  // where refill() looks for it
    state[0] = static_cast<uint32_t>(seed);
    for (uint32_t i = 1; i < kMtWords; ++i)
      state[i] = 1812433253u * (state[i - 1] ^ (state[i - 1] >> 30)) + i;
  }

  // Goes on from what get_state gave.
  TorchGenerator(const std::string& state, const NormalKernels& kernels) : kernels_(kernels), origin_(state) {
    const TorchState from = unpacked();
    is_untouched_ = from.next == 0 && from.left == 1;
    check(is_untouched_ || (from.next >= 1 && from.next <= kMtWords &&
                            from.next + static_cast<uint64_t>(from.left) == kMtWords + 1),
          code::kInvalidRequest, "generator: its state has ", from.next, " words used and ", from.left,
          " left, which no torch.Generator of the CPU has");
    uint32_t* words = words_ + kBlocks * kMtWords;
    for (size_t i = 0; i < kMtWords; ++i) words[i] = static_cast<uint32_t>(from.words[i]);
    position_ = is_untouched_ ? kEnd : kBlocks * kMtWords + from.next;
    has_second_ = from.has_second != 0;
    second_ = from.second;
  }

  // For get_state of a generator that began with a state.
  std::string state() const {
    TorchState to = unpacked();
    const size_t block = is_untouched_ ? kBlocks : (position_ - 1) / kMtWords;
    to.next = is_untouched_ ? 0 : position_ - block * kMtWords;
    to.left = static_cast<int32_t>(is_untouched_ ? 1 : kMtWords + 1 - to.next);
    for (size_t i = 0; i < kMtWords; ++i) to.words[i] = words_[block * kMtWords + i];
    to.has_second = has_second_;
    to.second = has_second_ ? second_ : 0.0;
    std::string bytes(sizeof to, '\0');
    std::memcpy(bytes.data(), &to, sizeof to);
    return bytes;
  }

  // torch.randn with `count` elements.
  void randn(float* out, size_t count) {
    if (count < kTorchBlock) {
      for (size_t i = 0; i < count; ++i) out[i] = static_cast<float>(small_normal());
      return;
    }
    const size_t rest = count % kTorchBlock;
    normals(out, count / kTorchBlock);
    if (rest == 0) return;
    // torch spends a uniform on each element of the incomplete block and then makes the last 16 anew.
    skip(rest);
    normals(out + count - kTorchBlock, 1);
  }

 private:
  // words_[0, 624) is the state that the rest grew from; several blocks per refill make its copy cheap.
  static constexpr size_t kBlocks = 4;
  static constexpr size_t kEnd = (kBlocks + 1) * kMtWords;

  void refill() {
    std::memcpy(words_, words_ + kBlocks * kMtWords, kMtWords * sizeof(uint32_t));
    kernels_.advance(words_, kBlocks);
    position_ = kMtWords;
    is_untouched_ = false;
  }

  TorchState unpacked() const {
    check(origin_.size() == sizeof(TorchState), code::kInvalidRequest, "generator: a state of ",
          origin_.size(), " bytes, that of a torch.Generator of the CPU has ", sizeof(TorchState));
    TorchState state;
    std::memcpy(&state, origin_.data(), sizeof state);
    return state;
  }

  void normals(float* out, size_t block_count) {
    while (block_count > 0) {
      if (position_ == kEnd) refill();
      const size_t whole = std::min((kEnd - position_) / kTorchBlock, block_count);
      kernels_.torch_normals(words_ + position_, out, whole);
      position_ += whole * kTorchBlock;
      out += whole * kTorchBlock;
      block_count -= whole;
      if (block_count == 0 || position_ == kEnd) continue;
      uint32_t across[kTorchBlock];  // a block that begins in this refill and ends in the next
      const size_t here = kEnd - position_;
      std::memcpy(across, words_ + position_, here * sizeof(uint32_t));
      refill();
      std::memcpy(across + here, words_ + position_, (kTorchBlock - here) * sizeof(uint32_t));
      position_ += kTorchBlock - here;
      kernels_.torch_normals(across, out, 1);
      out += kTorchBlock;
      --block_count;
    }
  }

  void skip(size_t count) {
    for (; count > 0; --count) next_word();
  }

  uint32_t next_word() {
    if (position_ == kEnd) refill();
    uint32_t word = words_[position_++];
    word ^= word >> 11;
    word ^= (word << 7) & 0x9d2c5680u;
    word ^= (word << 15) & 0xefc60000u;
    return word ^ (word >> 18);
  }

  // 53 bits of two words, the first one on top.
  double uniform53() {
    const uint64_t high = next_word();
    const uint64_t word = (high << 32) | next_word();
    return static_cast<double>(word & ((uint64_t{1} << 53) - 1)) * 0x1p-53;
  }

  // Box-Muller in float64. The sine waits in the generator for the next small draw, however many large ones
  // come between.
  double small_normal() {
    if (has_second_) {
      has_second_ = false;
      return second_;
    }
    const double u1 = uniform53();
    const double u2 = uniform53();
    const double radius = std::sqrt(-2.0 * std::log1p(-u2));
    const double theta = 2.0 * std::numbers::pi * u1;
    second_ = radius * std::sin(theta);
    has_second_ = true;
    return radius * std::cos(theta);
  }

  const NormalKernels& kernels_;
  size_t position_ = kEnd;
  double second_ = 0;
  bool has_second_ = false;
  bool is_untouched_ = false;
  std::string origin_;
  alignas(64) uint32_t words_[kEnd];
};

class TorchStream final : public NoiseStream {
 public:
  TorchStream(const std::vector<uint64_t>& seeds, bool is_shared) : seeds_(seeds), is_shared_(is_shared) {
    check_seeds("torch", seeds, is_shared);
    generators_.reserve(seeds.size());
    for (uint64_t seed : seeds) generators_.emplace_back(seed, normal_kernels());
  }

  void draw(float* out, size_t image_count, size_t count_per_image) override {
    check_images(image_count, seeds_, is_shared_);
    const size_t count = is_shared_ ? image_count * count_per_image : count_per_image;
    for (TorchGenerator& generator : generators_) {
      generator.randn(out, count);
      out += count;
    }
  }

  bool is_shared() const override { return is_shared_; }

 private:
  std::vector<uint64_t> seeds_;
  bool is_shared_;
  std::vector<TorchGenerator> generators_;
};

}  // namespace

std::unique_ptr<NoiseStream> torch_stream(std::vector<uint64_t> seeds, bool is_shared) {
  return std::make_unique<TorchStream>(seeds, is_shared);
}

std::unique_ptr<CallerStream> torch_state_stream(const std::vector<std::string>& states,
                                                 std::vector<size_t> owners) {
  return std::make_unique<StateStream<TorchGenerator>>(states, std::move(owners));
}

}  // namespace textopia::rng
