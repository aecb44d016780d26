// Normal kernels for AVX-512: two blocks or groups at a time, the same operations in every lane.
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
#include "rng/lanes_avx512.h"

void advance(uint32_t* words, size_t block_count) {
  for (size_t k = 0; k < kMtWords * block_count; k += 16)
    Lanes16::store(words + kMtWords + k,
                   mt_step<Lanes16>(Lanes16::load(words + k), Lanes16::load(words + k + 1),
                                    Lanes16::load(words + k + 397)));
}

void torch_normals(const uint32_t* words, float* out, size_t block_count) {
  size_t block = 0;
  for (; block + 2 <= block_count; block += 2)
    torch_two_blocks(words + kTorchBlock * block, out + kTorchBlock * block);
  if (block < block_count) torch_block(words + kTorchBlock * block, out + kTorchBlock * block);
}

void philox_normals(uint64_t seed, uint64_t draw, uint64_t first_group, float* out, size_t group_count) {
  size_t group = 0;
  for (; group + 2 <= group_count; group += 2)
    philox_two_groups(seed, draw, first_group + group, out + kPhiloxGroup * group);
  if (group < group_count) philox_group(seed, draw, first_group + group, out + kPhiloxGroup * group);
}

void cuda_normals(uint64_t seed, uint64_t draw, float* out, size_t count) {
  size_t i = 0;
  for (; i + 8 <= count; i += 8) cuda_eight(seed, draw, i, out + i);
  if (i == count) return;
  float last[8];
  cuda_eight(seed, draw, i, last);
  for (size_t k = i; k < count; ++k) out[k] = last[k - i];
}

constexpr NormalKernels kKernels = {advance, torch_normals, philox_normals, cuda_normals};

}  // namespace

const NormalKernels& normal_kernels_avx512() { return kKernels; }

}  // namespace textopia::rng
