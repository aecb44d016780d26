// The launches of a program's instructions: the parameters of the kernels in kernels/*.py, in their order.
#pragma once

#include <array>
#include <cstdint>

#include "cuda/module.h"

namespace textopia::engine {

using cuda::api::Pointer;

inline constexpr size_t kCombineLatents = 8;  // kernels/combine.py: LATENTS, OUTPUTS
inline constexpr size_t kCombineOutputs = 8;

struct CombineLaunch {
  std::array<Pointer, kCombineLatents> latents{};
  std::array<float, kCombineLatents> latent_weights{};  // 0: the slot is empty
  std::array<Pointer, kCombineOutputs> outputs{};
  std::array<float, kCombineOutputs> positive_weights{};
  std::array<float, kCombineOutputs> negative_weights{};
  std::array<int32_t, kCombineOutputs> factor_rows;
  Pointer factors = 0;
  float noise_weight = 0.0f;
  Pointer seeds = 0;
  uint64_t draw = 0;
  Pointer target = 0;
  int32_t target_size = 0;  // 0: no target
  Pointer network_input = 0;
  float scale = 1.0f;
  int32_t input_halves = 0;
  Pointer level = 0, network_level = 0;
  int32_t level_words = 0;
  Pointer bad_step = 0;
  int32_t step = 0, size = 0, image_count = 0, images_per_run = 0, halves = 1;

  CombineLaunch() { factor_rows.fill(-1); }
  cuda::Parameters parameters() const {
    return cuda::Parameters()
        .add(latents)
        .add(latent_weights)
        .add(outputs)
        .add(positive_weights)
        .add(negative_weights)
        .add(factor_rows)
        .add(factors)
        .add(noise_weight)
        .add(seeds)
        .add(draw)
        .add(target)
        .add(target_size)
        .add(network_input)
        .add(scale)
        .add(input_halves)
        .add(level)
        .add(network_level)
        .add(level_words)
        .add(bad_step)
        .add(step)
        .add(size)
        .add(image_count)
        .add(images_per_run)
        .add(halves);
  }
};

struct ClampLaunch {
  Pointer x, target;
  float low, high;
  int32_t count;

  cuda::Parameters parameters() const {
    return cuda::Parameters().add(x).add(target).add(low).add(high).add(count);
  }
};

struct BlendLaunch {
  Pointer x, target, mask, known, noise;
  float known_weight, noise_weight;
  int32_t count;

  cuda::Parameters parameters() const {
    return cuda::Parameters()
        .add(x)
        .add(target)
        .add(mask)
        .add(known)
        .add(noise)
        .add(known_weight)
        .add(noise_weight)
        .add(count);
  }
};

struct ThresholdLaunch {
  Pointer x, target;
  int32_t below;
  float share, high;
  int32_t size;

  cuda::Parameters parameters() const {
    return cuda::Parameters().add(x).add(target).add(below).add(share).add(high).add(size);
  }
};

struct RescaleLaunch {
  Pointer output, factors;
  int32_t row;
  double guidance, phi;
  int32_t size, image_count, images_per_run;

  cuda::Parameters parameters() const {
    return cuda::Parameters()
        .add(output)
        .add(factors)
        .add(row)
        .add(guidance)
        .add(phi)
        .add(size)
        .add(image_count)
        .add(images_per_run);
  }
};

struct LangevinLaunch {
  Pointer x, score, noise, target, seeds;
  uint64_t draw;
  double factor;
  int32_t is_batch_norm;
  Pointer bad_step;
  int32_t step, size, image_count;

  cuda::Parameters parameters() const {
    return cuda::Parameters()
        .add(x)
        .add(score)
        .add(noise)
        .add(target)
        .add(seeds)
        .add(draw)
        .add(factor)
        .add(is_batch_norm)
        .add(bad_step)
        .add(step)
        .add(size)
        .add(image_count);
  }
};

}  // namespace textopia::engine
