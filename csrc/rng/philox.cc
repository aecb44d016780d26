// The streams that need no state but a counter.
#include <cstring>

#include "base/error.h"
#include "rng/noise.h"
#include "rng/normal.h"
#include "rng/stream.h"

namespace textopia::rng {

void philox4x32_10(uint64_t seed, uint64_t block, uint64_t draw, uint32_t words[4]) {
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  uint32_t x[4] = {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                   static_cast<uint32_t>(draw), static_cast<uint32_t>(draw >> 32)};
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * x[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * x[2];
    x[0] = static_cast<uint32_t>(product1 >> 32) ^ x[1] ^ key0;
    x[2] = static_cast<uint32_t>(product0 >> 32) ^ x[3] ^ key1;
    x[1] = static_cast<uint32_t>(product1);
    x[3] = static_cast<uint32_t>(product0);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  for (int i = 0; i < 4; ++i) words[i] = x[i];
}

void philox_fill(const NormalKernels& kernels, uint64_t seed, uint64_t draw, float* out, size_t count) {
  const size_t group_count = count / kPhiloxGroup, rest = count % kPhiloxGroup;
  kernels.philox_normals(seed, draw, 0, out, group_count);
  if (rest == 0) return;
  float last[kPhiloxGroup];
  kernels.philox_normals(seed, draw, group_count, last, 1);
  std::memcpy(out + group_count * kPhiloxGroup, last, rest * sizeof(float));
}

namespace {

class PhiloxStream final : public NoiseStream {
 public:
  explicit PhiloxStream(std::vector<uint64_t> seeds)
      : counter_{std::move(seeds), 0}, kernels_(normal_kernels()) {
    check_seeds("philox", counter_.seeds, false);
  }

  void draw(float* out, size_t image_count, size_t count_per_image) override {
    check_images(image_count, counter_.seeds, false);
    for (size_t image = 0; image < image_count; ++image, out += count_per_image)
      philox_fill(kernels_, counter_.seeds[image], counter_.next_draw, out, count_per_image);
    ++counter_.next_draw;
  }

  Counter* counter() override { return &counter_; }

 private:
  Counter counter_;
  const NormalKernels& kernels_;
};

class CudaStream final : public NoiseStream {
 public:
  CudaStream(std::vector<uint64_t> seeds, bool is_shared)
      : seeds_(std::move(seeds)), is_shared_(is_shared), kernels_(normal_kernels()) {
    check_seeds("cuda", seeds_, is_shared);
  }

  void draw(float* out, size_t image_count, size_t count_per_image) override {
    check_images(image_count, seeds_, is_shared_);
    const size_t count = is_shared_ ? image_count * count_per_image : count_per_image;
    for (uint64_t seed : seeds_) {
      kernels_.cuda_normals(seed, draw_, out, count);
      out += count;
    }
    ++draw_;
  }

  bool is_shared() const override { return is_shared_; }

 private:
  std::vector<uint64_t> seeds_;
  bool is_shared_;
  const NormalKernels& kernels_;
  uint64_t draw_ = 0;
};

// A CUDA torch.Generator: its state is a seed and an offset in counters of Philox, of which each draw of a
// tensor that one thread per element makes takes four.
class CudaGenerator {
 public:
  CudaGenerator(const std::string& state, const NormalKernels& kernels) : kernels_(kernels) {
    check(state.size() == sizeof state_, code::kInvalidRequest, "generator: a state of ", state.size(),
          " bytes, that of a torch.Generator of CUDA has ", sizeof state_);
    std::memcpy(&state_, state.data(), sizeof state_);
  }

  void randn(float* out, size_t count) {
    kernels_.cuda_normals(state_.seed, state_.offset / 4, out, count);
    state_.offset += 4;
  }

  std::string state() const { return {reinterpret_cast<const char*>(&state_), sizeof state_}; }

 private:
  const NormalKernels& kernels_;
  struct {
    uint64_t seed;
    uint64_t offset;
  } state_;
};

}  // namespace

std::unique_ptr<NoiseStream> philox_stream(std::vector<uint64_t> seeds) {
  return std::make_unique<PhiloxStream>(std::move(seeds));
}

std::unique_ptr<NoiseStream> cuda_stream(std::vector<uint64_t> seeds, bool is_shared) {
  return std::make_unique<CudaStream>(std::move(seeds), is_shared);
}

std::unique_ptr<CallerStream> cuda_state_stream(const std::vector<std::string>& states,
                                                std::vector<size_t> owners) {
  return std::make_unique<StateStream<CudaGenerator>>(states, std::move(owners));
}

}  // namespace textopia::rng
