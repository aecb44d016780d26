// torch.randn of a CPU generator, float32. Facts found by comparing with torch 2.13 (tests/rng).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "rng/noise.h"
#include "rng/normal.h"
#include "rng/stream.h"

namespace textopia::rng {
namespace {

// One torch.Generator: MT19937 (Matsumoto and Nishimura 1998) plus the second normal of a small draw.
class TorchGenerator {
 public:
  TorchGenerator(uint64_t seed, const NormalKernels& kernels) : kernels_(kernels) {
    uint32_t* state = words_ + kBlocks * kMtWords;  // where refill() looks for it
    state[0] = static_cast<uint32_t>(seed);
    for (uint32_t i = 1; i < kMtWords; ++i)
      state[i] = 1812433253u * (state[i - 1] ^ (state[i - 1] >> 30)) + i;
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

 private:
  std::vector<uint64_t> seeds_;
  bool is_shared_;
  std::vector<TorchGenerator> generators_;
};

}  // namespace

std::unique_ptr<NoiseStream> torch_stream(std::vector<uint64_t> seeds, bool is_shared) {
  return std::make_unique<TorchStream>(seeds, is_shared);
}

}  // namespace textopia::rng
