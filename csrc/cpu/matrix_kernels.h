// What a matrix unit does for the kernels above it, as one table of functions per unit. Plain declarations
// only: the files compiled for one instruction set include this header.
//
// Activations are multiplied from a "slab": bfloat16 in blocks of 32 channels, [channels/32][rows][32], where
// a row is a token, or a pixel of an image with a border of zeros. A tap of a convolution is then nothing but
// a constant offset into the slab.
//
// An int8 slab has the same rows of 64 bytes and holds 64 channels in each, as unsigned bytes: x = (byte -
// zero point) * scale of the row. Pointers to slabs and panels count 16 bits also there.
#pragma once

#include <cstddef>
#include <cstdint>

namespace textopia::cpu {

enum class Activation : int { kNone, kSilu, kGelu, kQuickGelu };

// One step of a product: 64 bytes of channels of one tap.
struct Step {
  int32_t offset;  // elements from a row's place in the first channel block to what this step reads of it
  int32_t words;   // of two or four channels that are not padding, 1 to 16
};

// Copies `rows` rows of 32 * blocks channels into a slab; row r is sources[r] of `from`, or zeros where that
// is negative. The last block is padded with zeros.
struct PackTask {
  const uint16_t* from;  // [sources][channels]
  int64_t channels;
  const int32_t* sources;
  int64_t rows;
  uint16_t* slab;  // [ceil(channels / 32)][slab_rows][32], 64-byte aligned
  int64_t slab_rows;
};

// The same into an int8 slab. Rows that come from nowhere are filled with the zero point.
struct QuantiseTask {
  PackTask rows;
  int zero_point;  // 1 to 254
  float* scales;   // per row of the slab: found here, or given
  bool has_scales;
};

// The largest number in bfloat16 `from` and the largest negative magnitude, as bits: 0x7f80 and above where
// there is an infinity or a NaN.
struct RangeTask {
  const uint16_t* from;
  int64_t count;
  uint16_t high, low;  // the result
};

// out[out_rows[r]][n] = act(sum of steps + bias[n] + row_bias[images[r] * row_bias_stride + n]) +
// residual[out_rows[r]][n] for the columns of panel_count panels; rows with out_rows[r] < 0 are computed and
// dropped. With gates a panel has 16 columns: out = value * gelu(gate), bias is [2 * columns], the gates'
// behind.
struct ProductTask {
  const uint16_t* slab;  // row r of the first step is slab + r * 32 + steps[0].offset
  const Step* steps;
  int step_count;
  int chunk_steps;  // steps whose weights stay in the nearest cache while all rows pass
  int rows;         // the slab holds padded_rows(rows) rows at every offset
  const uint16_t* panels;
  int64_t panel_elements;
  int64_t first_panel, panel_count;
  void* sums;               // [padded_rows(rows)][32] scratch, float or int32
  const float* row_scales;  // int8 only, as is the zero point
  int zero_point;
  const int32_t* out_rows;
  const int32_t* images;     // null without row_bias
  const float* bias;         // or null
  const uint16_t* row_bias;  // or null
  int64_t row_bias_stride;   // 0 where all images share one
  const uint16_t* residual;  // or null
  uint16_t* out;
  int64_t columns;  // of out, residual and row_bias
  Activation activation;
  bool has_gates;
};

// A unit works on whole tiles of rows, which may begin at any row (borders between images are skipped): how
// many rows must be there, to be read and written, for `rows` of them.
inline constexpr int kTileRows = 32;
constexpr int64_t padded_rows(int64_t rows) { return rows + kTileRows - 1; }

// Keys and values of one head, brought into the form that attend() multiplies: keys as a slab
// [ceil(width / 32)][key_rows][32], values transposed in blocks of 32 keys, [key_rows / 32][value_rows][32].
struct HeadForm {
  int64_t keys;        // that there are
  int64_t width;       // channels of the head
  int64_t key_rows;    // keys rounded up to 32; the rest is zeros
  int64_t value_rows;  // width rounded up to 16
  uint16_t* key_slab;
  uint16_t* value_slab;
};

// Packs keys first .. last - 1 of a head; both are multiples of 32, or the end.
struct PackHeadTask {
  HeadForm head;
  const uint16_t* keys;  // of key 0, and so on
  const uint16_t* values;
  int64_t key_stride, value_stride;  // elements between two keys
  int64_t first, last;
};

// softmax(scale * q k^T + mask) v for some queries of one head.
struct AttendTask {
  HeadForm head;
  const uint16_t* q;  // of first_query
  uint16_t* out;
  int64_t q_stride, out_stride;
  int64_t first_query, queries;
  float scale;          // not negative
  const float* mask;    // row of first_query, or null; added to the logits
  int64_t mask_stride;  // between two queries; 0 where all have the same
  bool is_causal;       // query i sees keys 0 .. i
  // Scratch: [ceil(width / 32)][32][32] for queries, [kMostKeys][32] for logits and as much for weights,
  // [value_rows][32] for sums, ceil(width / 32) + kMostKeys / 32 steps.
  uint16_t* query_panel;
  float* logits;
  uint16_t* weight_panel;
  float* sums;
  Step* steps;
};
inline constexpr int kMostKeys = 256;   // that a unit takes at a time
inline constexpr int kQueryBlock = 32;  // queries at a time

struct MatrixKernels {
  void (*pack)(const PackTask&);
  void (*product)(const ProductTask&);
  void (*pack_head)(const PackHeadTask&);
  void (*attend)(const AttendTask&);
};

struct Int8Kernels {
  void (*range)(RangeTask&);
  void (*quantise)(const QuantiseTask&);
  void (*product)(const ProductTask&);
};

const MatrixKernels& matrix_kernels_avx512_bf16();
const MatrixKernels& matrix_kernels_amx_bf16();
const Int8Kernels& matrix_kernels_avx512_vnni();
const Int8Kernels& matrix_kernels_amx_int8();

}  // namespace textopia::cpu
