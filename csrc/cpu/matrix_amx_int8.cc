// The int8 kernels over AMX tiles.
#include <immintrin.h>

#include <cstdint>

#include "cpu/matrix_kernels.h"
#include "cpu/panels.h"

namespace textopia::cpu {
namespace {

#include "cpu/amx_tiles.h"
#include "cpu/matrix_quantise.h"
#include "cpu/matrix_unit_tiles.h"

struct Int8Tiles : AmxTiles {
  using Sum = int32_t;

  // Bytes of the activations are unsigned, those of the weights signed.
  template <int kSum, int kA, int kB>
  static void dot() {
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kB));
  }
};

}  // namespace

const Int8Kernels& matrix_kernels_amx_int8() {
  static constexpr Int8Kernels kKernels = {find_range, quantise_slab, multiply_slab<TileUnit<Int8Tiles>>};
  return kKernels;
}

}  // namespace textopia::cpu
