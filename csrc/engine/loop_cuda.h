// The denoising loop on a GPU. The whole program is turned into launches and graph runs before the first
// step; the loop only enqueues them, on one stream: per step one graph run and one fused COMBINE, no
// allocation, and no waiting for the device unless somebody watches.
#pragma once

#include "engine/gpu.h"
#include "engine/loop.h"

namespace textopia::engine {

// As sample(), with the denoiser's GPU. The request has been checked.
void sample_on_gpu(const Denoiser& denoiser, const SampleRequest& request);

}  // namespace textopia::engine
