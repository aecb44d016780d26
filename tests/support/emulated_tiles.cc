// The kernels over tiles (csrc/cpu/matrix_unit_tiles.h), with tiles that are arrays: what AMX would compute,
// on any CPU with AVX-512 and bfloat16 conversions. A library for tests/cpu/test_tiles.py, which compiles it.
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/workspace.cc"
#include "cpu/attention.cc"
#include "cpu/conv.cc"
#include "cpu/linear.cc"
#include "cpu/matrix_kernels.h"
#include "cpu/panels.cc"
#include "cpu/plan.cc"
#include "cpu/product.cc"

namespace textopia {

bool has_int8(MatrixUnit) { return true; }

namespace cpu {
namespace {

#include "cpu/matrix_attention.h"
#include "cpu/matrix_quantise.h"
#include "cpu/matrix_unit_tiles.h"

int misuses = 0;  // tiles used while none were configured, and rows that do not follow each other in memory

struct EmulatedTiles {
  struct Tile {
    uint32_t words[16][16];
  };
  static inline Tile tiles[8];
  static inline bool is_configured = false;

  static void begin() {
    misuses += is_configured;
    is_configured = true;
    std::memset(tiles, 0xff, sizeof(tiles));  // NaN until loaded
  }
  static void end() {
    misuses += !is_configured;
    is_configured = false;
  }
  template <int kTile>
  static void zero() {
    misuses += !is_configured;
    std::memset(&tiles[kTile], 0, sizeof(Tile));
  }
  template <int kTile>
  static void load(const void* from, int64_t row_bytes) {
    misuses += !is_configured || row_bytes < 64;
    for (int r = 0; r < 16; ++r)
      std::memcpy(tiles[kTile].words[r], static_cast<const char*>(from) + r * row_bytes, 64);
  }
  template <int kTile>
  static void store(void* to, int64_t row_bytes) {
    misuses += !is_configured || row_bytes < 64;
    for (int r = 0; r < 16; ++r)
      std::memcpy(static_cast<char*>(to) + r * row_bytes, tiles[kTile].words[r], 64);
  }
};

struct Bf16Tiles : EmulatedTiles {
  using Sum = float;

  static float flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }
  static float value(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof(x));
    return flushed(x);
  }
  // TDPBF16PS: the even and the odd products of a row of A and a column of B have a sum each; both are added,
  // and then to the tile. A product is exact, so that whether it is fused with its addition is no question.
  template <int kSum, int kA, int kB>
  static void dot() {
    misuses += !is_configured;
    for (int m = 0; m < 16; ++m) {
      for (int n = 0; n < 16; ++n) {
        float even = 0, odd = 0;
        for (int k = 0; k < 16; ++k) {
          const uint32_t a = tiles[kA].words[m][k], b = tiles[kB].words[k][n];
          even = flushed(even + value(a << 16) * value(b << 16));
          odd = flushed(odd + value(a & 0xffff0000u) * value(b & 0xffff0000u));
        }
        const float sum = flushed(value(tiles[kSum].words[m][n]) + flushed(even + odd));
        std::memcpy(&tiles[kSum].words[m][n], &sum, sizeof(sum));
      }
    }
  }
};

struct Int8Tiles : EmulatedTiles {
  using Sum = int32_t;

  // TDPBUSD: bytes of A are unsigned, those of B signed; sums wrap around.
  template <int kSum, int kA, int kB>
  static void dot() {
    misuses += !is_configured;
    for (int m = 0; m < 16; ++m) {
      for (int k = 0; k < 16; ++k) {
        const uint32_t a = tiles[kA].words[m][k];
        for (int n = 0; n < 16; ++n)
          for (int byte = 0; byte < 32; byte += 8)
            tiles[kSum].words[m][n] += static_cast<uint32_t>(
                static_cast<uint8_t>(a >> byte) * static_cast<int8_t>(tiles[kB].words[k][n] >> byte));
      }
    }
  }
};

constexpr MatrixKernels kEmulated = {pack_slab, multiply_slab<TileUnit<Bf16Tiles>>, pack_head,
                                     attend<TileUnit<Bf16Tiles>>};
constexpr Int8Kernels kEmulatedInt8 = {find_range, quantise_slab, multiply_slab<TileUnit<Int8Tiles>>};

// One task after the other: the emulation has one set of tiles.
const Parallel kSerial(
    nullptr,
    [](void*, size_t count, void (*task)(const void*, size_t), const void* data) {
      for (size_t i = 0; i < count; ++i) task(data, i);
    },
    2);

}  // namespace

const MatrixKernels& matrix_kernels_amx_bf16() { return kEmulated; }
const MatrixKernels& matrix_kernels_avx512_bf16() { return kEmulated; }
const Int8Kernels& matrix_kernels_amx_int8() { return kEmulatedInt8; }
const Int8Kernels& matrix_kernels_avx512_vnni() { return kEmulatedInt8; }
void conv_scalar(const ConvArgs&, const Parallel&) { ++misuses; }
void linear_scalar(const LinearArgs&, const Parallel&) { ++misuses; }
void attention_scalar(const AttentionArgs&, const Parallel&) { ++misuses; }

}  // namespace cpu
}  // namespace textopia

using namespace textopia;
using namespace textopia::cpu;

extern "C" {

int emulated_misuses() { return misuses; }

void emulated_linear(const uint16_t* x, const uint16_t* panels, const float* bias, const uint16_t* residual,
                     uint16_t* out, int64_t rows, int64_t channels, int64_t columns, int has_gates) {
  ProductArgs args;
  args.x = x;
  args.panels = panels;
  args.shape = {columns, channels, 1, has_gates != 0};
  args.bias = bias;
  args.residual = residual;
  args.out = out;
  multiply(args, Grid::of_rows(rows), MatrixUnit::kAmxBf16, kSerial);
}

// shape: images, height, width, channels, columns, kernel, stride, upsample, asymmetric_pad
void emulated_conv(const uint16_t* x, const uint16_t* panels, const float* bias, const uint16_t* time_bias,
                   const int64_t* shape, uint16_t* out) {
  ConvArgs args;
  args.x = x;
  args.weight.panels = panels;
  args.shape = {shape[0],
                shape[1],
                shape[2],
                shape[3],
                shape[4],
                static_cast<int>(shape[5]),
                static_cast<int>(shape[6]),
                shape[7] != 0,
                shape[8] != 0};
  args.bias = bias;
  args.time_bias = time_bias;
  args.out = out;
  conv(args, MatrixUnit::kAmxBf16, kSerial);
}

// The same in int8. shape: as above, and the zero point.
void emulated_int8_conv(const uint16_t* x, const uint16_t* panels, const float* bias, const int64_t* shape,
                        uint16_t* out) {
  ConvArgs args;
  args.x = x;
  args.weight = {panels, nullptr, true, static_cast<int>(shape[9])};
  args.shape = {shape[0],
                shape[1],
                shape[2],
                shape[3],
                shape[4],
                static_cast<int>(shape[5]),
                static_cast<int>(shape[6]),
                shape[7] != 0,
                shape[8] != 0};
  args.bias = bias;
  args.out = out;
  conv(args, MatrixUnit::kAmxBf16, kSerial);
}

// shape: batch, queries, keys, heads, width, causal
void emulated_attention(const uint16_t* q, const uint16_t* k, const uint16_t* v, const int64_t* shape,
                        uint16_t* out) {
  AttentionArgs args;
  args.q = q;
  args.k = k;
  args.v = v;
  args.out = out;
  args.batch = shape[0];
  args.queries = shape[1];
  args.keys = shape[2];
  args.heads = shape[3];
  args.width = shape[4];
  args.q_stride = args.k_stride = args.v_stride = args.heads * args.width;
  args.is_causal = shape[5] != 0;
  args.scale = 1.0f / std::sqrt(static_cast<float>(args.width));
  attention(args, MatrixUnit::kAmxBf16, kSerial);
}
}
