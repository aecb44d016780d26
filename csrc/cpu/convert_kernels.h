// The conversions per ISA, as plain declarations for the files that are compiled for one ISA.
#pragma once

#include <cstddef>
#include <cstdint>

namespace textopia::cpu {

struct ConvertKernels {
  void (*float_to_half)(const float* source, uint16_t* target, size_t count);
  void (*half_to_float)(const uint16_t* source, float* target, size_t count);
  void (*float_to_bfloat16)(const float* source, uint16_t* target, size_t count);
  void (*bfloat16_to_float)(const uint16_t* source, float* target, size_t count);
};

const ConvertKernels& convert_kernels_scalar();
const ConvertKernels& convert_kernels_avx2();

}  // namespace textopia::cpu
