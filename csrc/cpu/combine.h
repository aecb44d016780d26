// The fused update of the loop: one pass computes a weighted sum of up to kMaxSources latents and writes it
// to up to kMaxOutputs places, each with its own scale (the register itself, and the scaled network input
// of the next step, once per guidance half).
#pragma once

#include <cstddef>
#include <span>

#include "base/isa.h"

namespace textopia::cpu {

inline constexpr int kMaxSources = 16;
inline constexpr int kMaxOutputs = 3;

// sum = weights[0]*sources[0][i] + ... in order, in float32 without fused multiply-add (all ISAs agree bit for bit);
// outputs[k][i] = scales[k] * sum (scales[k] == 1 stores the sum itself).
// Promises asked of the caller: source_count in 1..kMaxSources, output_count in 1..kMaxOutputs; a source may be
// the same address as an output (in place), partial overlap is not allowed; no alignment needed.
// Bytes per element: 4*source_count read, 4*output_count written.
struct CombineArgs {
  const float* sources[kMaxSources];
  float weights[kMaxSources];
  int source_count = 0;
  float* outputs[kMaxOutputs];
  float scales[kMaxOutputs];
  int output_count = 0;
  size_t count = 0;
};

// Returns true when every sum is finite (the check rides along at no extra memory traffic).
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
