// Normal kernels for AVX2 and FMA.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "rng/normal.h"

namespace textopia::rng {
namespace {

#include "rng/cuda_math.h"
#include "rng/normal_math.h"
// Needs the functions above.
#include "rng/lanes_avx2.h"

void advance(uint32_t* words, size_t block_count) {
  for (size_t k = 0; k < kMtWords * block_count; k += 8)
    Lanes8::store(words + kMtWords + k, mt_step<Lanes8>(Lanes8::load(words + k), Lanes8::load(words + k + 1),
                                                        Lanes8::load(words + k + 397)));
}

void torch_normals(const uint32_t* words, float* out, size_t block_count) {
  for (size_t i = 0; i < block_count; ++i) torch_block(words + kTorchBlock * i, out + kTorchBlock * i);
}

void philox_normals(uint64_t seed, uint64_t draw, uint64_t first_group, float* out, size_t group_count) {
  for (size_t i = 0; i < group_count; ++i) philox_group(seed, draw, first_group + i, out + kPhiloxGroup * i);
}

void cuda_normals(uint64_t seed, uint64_t draw, float* out, size_t count) {
  size_t i = 0;
  for (; i + 4 <= count; i += 4) cuda_four(seed, draw, i, out + i);
  if (i == count) return;
  float last[4];
  cuda_four(seed, draw, i, last);
  for (size_t k = i; k < count; ++k) out[k] = last[k - i];
}

constexpr NormalKernels kKernels = {advance, torch_normals, philox_normals, cuda_normals};

}  // namespace

const NormalKernels& normal_kernels_avx2() { return kKernels; }

}  // namespace textopia::rng
