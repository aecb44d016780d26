// What the streams share: checks of their arguments and the choice of a kernel table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "rng/noise.h"
#include "rng/normal.h"

namespace textopia::rng {

// Throws Error{invalid_request} without seeds, or with several seeds and is_shared. `name` is the stream's.
void check_seeds(const char* name, const std::vector<uint64_t>& seeds, bool is_shared);

// Throws Error{invalid_request} unless there is a seed for each image (or one generator for all).
void check_images(size_t image_count, const std::vector<uint64_t>& seeds, bool is_shared);

// The kernels of active_isa().
const NormalKernels& normal_kernels();

// Draw `draw` under key `seed`, float32 [count], as described at philox_stream.
void philox_fill(const NormalKernels& kernels, uint64_t seed, uint64_t draw, float* out, size_t count);

// See torch_state_stream. Generator(state, kernels), randn(out, count) and state() are what it needs.
template <typename Generator>
class StateStream final : public CallerStream {
 public:
  StateStream(const std::vector<std::string>& states, std::vector<size_t> owners)
      : owners_(std::move(owners)) {
    check(!states.empty() && (states.size() == 1 || !owners_.empty()), code::kInvalidRequest,
          "generator: ", states.size(), " states without owners; one is needed");
    for (size_t owner : owners_)
      check(owner < states.size(), code::kInvalidRequest, "generator: number ", owner, " of ", states.size());
    generators_.reserve(states.size());
    for (const std::string& state : states) generators_.emplace_back(state, normal_kernels());
  }

  void draw(float* out, size_t image_count, size_t count_per_image) override {
    if (owners_.empty()) return generators_[0].randn(out, image_count * count_per_image);
    check(image_count <= owners_.size(), code::kInvalidRequest, "noise: a draw for ", image_count,
          " images was asked of ", owners_.size(), " generators, one per image");
    for (size_t image = 0; image < image_count; ++image)
      generators_[owners_[image]].randn(out + image * count_per_image, count_per_image);
  }

  bool is_shared() const override { return owners_.empty(); }

  std::vector<std::string> states() const override {
    std::vector<std::string> states;
    for (const Generator& generator : generators_) states.push_back(generator.state());
    return states;
  }

 private:
  std::vector<size_t> owners_;
  std::vector<Generator> generators_;
};

}  // namespace textopia::rng
