// The matrix kernels over AMX tiles. Everything around the tiles is AVX-512, which every CPU with AMX has.
#include <immintrin.h>

#include <cstdint>

#include "cpu/matrix_kernels.h"
#include "cpu/panels.h"

namespace textopia::cpu {
namespace {

#include "cpu/amx_tiles.h"
#include "cpu/matrix_attention.h"
#include "cpu/matrix_unit_tiles.h"

struct Bf16Tiles : AmxTiles {
  using Sum = float;

  template <int kSum, int kA, int kB>
  static void dot() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kB));
  }
};

}  // namespace

const MatrixKernels& matrix_kernels_amx_bf16() {
  static constexpr MatrixKernels kKernels = {pack_slab, multiply_slab<TileUnit<Bf16Tiles>>, pack_head,
                                             attend<TileUnit<Bf16Tiles>>};
  return kKernels;
}

}  // namespace textopia::cpu
