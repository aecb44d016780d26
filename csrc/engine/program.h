// The program that the loop executes: a short table of instructions over latents, made by tracing a sampler
// (python/textopia_fast/tracing/trace.py). Plain data; the whole instruction set is here.
//
// Registers: "latents" x0, x1, ... hold [B, C, H, W] float32; x0 holds the start. "Outputs" e0, e1, ... hold
// what the network returned; under classifier-free guidance both halves, and a weight w on an output stands
// for w*(1-g) on the negative half and w*g on the positive half, g being the guidance of the DENOISE that
// wrote it. u0 is the negative half of e0 alone; a DENOISE whose half is read so runs both halves whatever g.
#pragma once

#include <string>
#include <variant>
#include <vector>

namespace textopia::engine {

enum class Bank { kLatent, kOutput, kUncond };

struct Term {
  Bank bank;
  int index;
  double weight;
};

// outputs[dst] = network(latents[src] * scale_in, noise_level)
struct Denoise {
  int dst;
  int src;
  double scale_in;
  double noise_level;
};

// latents[dst] = sum of weight * register + noise * (a fresh unit normal draw)
struct Combine {
  int dst;
  std::vector<Term> terms;
  double noise;  // 0: nothing is drawn
};

// latents[dst] = latents[src] limited to [low, high]
struct Clamp {
  int dst;
  int src;
  double low;
  double high;
};

// Dynamic thresholding, a CLAMP per image: latents[dst] = latents[src] limited to [-s, s] and divided by s,
// where s is the `ratio` quantile of the image's magnitudes, at least 1 and then at most `high` (Saharia et
// al. 2022, section 2.3).
struct Threshold {
  int dst;
  int src;
  double ratio;
  double high;
};

// Guidance rescale (Lin et al. 2024, section 3.4): per image, what is read of outputs[output] from here on is
// multiplied by phi * std(positive half) / std(guided output) + 1 - phi. Without guidance it changes nothing;
// u is not touched.
struct Rescale {
  int output;
  double phi;
};

// z = a fresh draw; step = factor * (|z| / |score|)^2; latents[dst] = src + step * score + sqrt(2 step) * z
// (Song et al. 2021, algorithm 5). Norms per image, or averaged over the batch as in the authors' code.
struct LangevinStep {
  int dst;
  int src;
  int score;
  double factor;
  bool is_batch_norm;
};

// latents[dst] = mask * latents[src] + (1 - mask) * (known * K + noise * N), where the request gives the mask
// (1: to be painted), the known latents K and one unit normal N. Inpainting; dst may be src.
struct Blend {
  int dst;
  int src;
  double known;
  double noise;
};

// The point between two steps: progress, cancellation, deadline, callback. `denoised` is evaluated only when
// a callback asks for it.
struct Step {
  int index;
  int x;
  std::vector<Term> denoised;
};

using Instruction = std::variant<Denoise, Combine, Clamp, Threshold, Rescale, LangevinStep, Blend, Step>;

struct Program {
  std::vector<Instruction> instructions;
  int latent_count = 1;
  int output_count = 0;
  int result = 0;  // latent that holds the sample at the end

  // Throws Error{invalid_request} on a register that does not exist or was never written, a weight that is
  // not finite, or an empty sum. After this the loop needs no checks.
  void validate() const;

  int count_denoise() const;
  int count_steps() const;
  std::vector<double> noise_levels() const;  // of every DENOISE
  bool draws_noise() const;
  int count_draws() const;
  bool blends() const;
  bool thresholds() const;
  bool rescales() const;
  // Per DENOISE: whether the negative half of its output is read alone.
  std::vector<bool> reads_uncond() const;
};

}  // namespace textopia::engine
