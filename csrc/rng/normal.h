// The number-making kernels under the noise streams, one table per ISA. All of them give the same bits: they
// share the order of operations of normal_math.h and fuse a multiplication with an addition only where it
// says so. Plain declarations only: the files compiled for one ISA include this header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace textopia::rng {

inline constexpr size_t kMtWords = 624;     // words of one MT19937 state
inline constexpr size_t kTorchBlock = 16;   // normals that one Box-Muller block of torch makes
inline constexpr size_t kPhiloxGroup = 32;  // normals that eight Philox counters make

struct NormalKernels {
  // MT19937's recurrence as one line of words: reads words[0, 624), writes words[624, 624 * (1 +
  // block_count)).
  void (*advance)(uint32_t* words, size_t block_count);

  // Tempers 16 * block_count words of the recurrence and turns each 16 into 16 normals as torch.randn does on
  // a CPU with AVX2. No alignment asked, no overlap. 4 bytes read and 4 written per normal.
  void (*torch_normals)(const uint32_t* words, float* out, size_t block_count);

  // Groups first_group .. first_group + group_count of draw `draw` under key `seed`; 32 normals each. The
  // mapping is described at philox_stream in noise.h. 4 bytes written per normal.
  void (*philox_normals)(uint64_t seed, uint64_t draw, uint64_t first_group, float* out, size_t group_count);

  // Elements 0 .. count of draw `draw` (below 2^32) of a CUDA generator; see cuda_stream in noise.h. 4 bytes
  // written per normal.
  void (*cuda_normals)(uint64_t seed, uint64_t draw, float* out, size_t count);
};

const NormalKernels& normal_kernels_scalar();
const NormalKernels& normal_kernels_avx2();
const NormalKernels& normal_kernels_avx512();

// One counter of Philox4x32-10 (Salmon et al. 2011): counter words (block low, block high, draw low, draw
// high), key words (seed low, seed high). In philox.cc.
void philox4x32_10(uint64_t seed, uint64_t block, uint64_t draw, uint32_t words[4]);

}  // namespace textopia::rng
