// The arguments of the fused update and its kernels, as plain declarations: the files that are compiled for
// one ISA include this header and nothing that could emit an inline function of the standard library.
#pragma once

#include <cstddef>

namespace textopia::cpu {

inline constexpr int kMaxSources = 16;
inline constexpr int kMaxOutputs = 3;

// sum = weights[0]*sources[0][i] + ... in order, in float32 without fused multiply-add (all ISAs agree bit
// for bit); outputs[k][i] = scales[k] * sum (scales[k] == 1 stores the sum itself). Promises asked of the
// caller: source_count in 1..kMaxSources, output_count in 1..kMaxOutputs; a source may be the same address as
// an output (in place), partial overlap is not allowed; no alignment needed. Bytes per element:
// 4*source_count read, 4*output_count written.
struct CombineArgs {
  const float* sources[kMaxSources] = {};
  float weights[kMaxSources] = {};
  int source_count = 0;
  float* outputs[kMaxOutputs] = {};
  float scales[kMaxOutputs] = {};
  int output_count = 0;
  size_t count = 0;
};

bool combine_scalar(const CombineArgs& args);
bool combine_avx2(const CombineArgs& args);
bool combine_avx512(const CombineArgs& args);

}  // namespace textopia::cpu
