// The fused update of the loop: one pass computes a weighted sum of up to kMaxSources latents and writes it
// to up to kMaxOutputs places, each with its own scale (the register itself, and the scaled network input
// of the next step, once per guidance half).
#pragma once

#include <span>

#include "base/isa.h"
#include "cpu/combine_kernels.h"

namespace textopia::cpu {

// Returns true when every sum is finite (the check rides along at no extra memory traffic). One call is one
// thread's work; elements are independent, so that a caller may cut a latent into ranges.
using CombineFn = bool (*)(const CombineArgs&);

struct CombineKernel {
  Isa isa;
  CombineFn run;
};

// All kernels of this build, best first; the scalar one is last and is the oracle of the others.
std::span<const CombineKernel> combine_kernels();

// The kernel of `isa`; throws Error{configuration} when this build or CPU has none.
CombineFn combine_kernel(Isa isa);

}  // namespace textopia::cpu
