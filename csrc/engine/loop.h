// Executes a program against a denoiser: the denoising loop. No Python, no allocation and no string work
// after the first step; a step is one graph run and one fused COMBINE.
#pragma once

#include <functional>
#include <vector>

#include "cpu/combine.h"
#include "engine/denoiser.h"
#include "engine/network.h"
#include "engine/program.h"
#include "engine/request.h"
#include "rng/noise.h"

namespace textopia::engine {

// Called at a STEP with the latents (which it may change) and, when asked for, the denoised estimate.
using StepCallback = std::function<void(int step, float* latents, const float* denoised)>;

// What a callback between two evaluations may change; it holds for those that follow.
class Steering {
 public:
  virtual void set_guidance(double guidance) = 0;
  // Shapes as at the start; without a negative half the present one stays.
  virtual void set_conditioning(const Conditioning& item) = 0;
  virtual void set_mask(const float* mask) = 0;  // of BLEND; copied

 protected:
  ~Steering() = default;
};

// Called after each network evaluation with the latents that the next one reads, or with the sample after the
// last; it may change them.
using EvaluationCallback = std::function<void(int evaluation, float* latents, Steering& steering)>;

// What BLEND mixes in; all of the latents' shape.
struct Inpainting {
  const float* known = nullptr;  // clean latents
  const float* mask = nullptr;   // 1: to be painted, 0: known
  const float* noise = nullptr;  // one unit normal draw
};

struct SampleRequest {
  Shape shape;               // [B, ...] of the latents
  float* latents = nullptr;  // in: the start; out: the sample
  // On a GPU, float32 of that shape, and then `latents` is not read or not written; 0: it is.
  cuda::api::Pointer device_start = 0, device_sample = 0;
  const Program* program = nullptr;  // validated
  std::vector<Conditioning> conditioning;
  std::vector<double> guidance = {1.0};  // one value, or one per DENOISE; 1 runs the positive half alone
  rng::NoiseStream* noise = nullptr;     // needed by programs that draw
  Inpainting inpainting;                 // needed by programs that blend
  Limits limits;
  Progress* progress = nullptr;
  StepCallback on_step;  // empty: nobody watches, and nothing is spent on it
  bool wants_denoised = false;
  EvaluationCallback on_evaluation;  // empty: as above
  cpu::CombineFn combine = nullptr;
};

// Throws invalid_request, cancelled, deadline_exceeded, numerical (NaN or infinity, with the step) and what a
// graph run throws. The latents are undefined after a throw.
void sample(const Denoiser& denoiser, const SampleRequest& request);

}  // namespace textopia::engine
