// The product of a slab and panels over a matrix unit. Include only inside the unnamed namespace of a kernel
// file. A `Unit` has:
//   kKeys             keys that attention takes at a time, a multiple of 32 up to kMostKeys
//   Sum               float or int32_t
//   block_rows(rows)  into how many rows at a time `rows` are best cut
//   Session           an object alive around products (AMX loads its tile configuration)
//   multiply(a, steps, step_count, b, sums, rows, is_first, ahead)
//                     sums[rows][32] (+)= the rows at `a` times the steps at `b`; may read and write up to
//                     padded_rows(rows) rows; calls ahead.prefetch() once per step
//   kFinishesBeside   whether multiply() takes one argument more, a `Waiting*` or null, and calls its
//                     finish_some() in each step until none is left, before it writes sums: work for the
//                     vector registers while tiles multiply
#pragma once

#include "cpu/lanes_bf16_avx512.h"

// Memory that a unit brings closer while it multiplies: the weights that come next.
struct Ahead {
  const uint16_t* next;
  int lines;  // per call

  void prefetch() {
    for (int i = 0; i < lines; ++i, next += 32)
      _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T1);
  }
};

constexpr int kStepLines = kStepElements * 2 / 64;  // cache lines of a step of weights

// Reads sums: 16 columns of one half of a panel.
template <typename Sum>
class SumReader;

template <>
class SumReader<float> {
 public:
  SumReader(const ProductTask&, int64_t) {}
  __m512 operator()(const float* sums, int, int half) const { return _mm512_loadu_ps(sums + half * 16); }
};

// Integers come with a zero point, whose share is exact, and two scales.
template <>
class SumReader<int32_t> {
 public:
  SumReader(const ProductTask& task, int64_t panel) : row_scales_(task.row_scales) {
    const uint16_t* end = task.panels + (panel + 1) * task.panel_elements;
    const auto* scales = reinterpret_cast<const PanelScales*>(end - sizeof(PanelScales) / 2);
    const __m512i zero_point = _mm512_set1_epi32(task.zero_point);
    for (int half = 0; half < 2; ++half) {
      scale_[half] = _mm512_loadu_ps(scales->scale + half * 16);
      offset_[half] = _mm512_mullo_epi32(_mm512_loadu_si512(scales->sum + half * 16), zero_point);
    }
  }
  __m512 operator()(const int32_t* sums, int row, int half) const {
    const __m512i sum = _mm512_sub_epi32(_mm512_loadu_si512(sums + half * 16), offset_[half]);
    return _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale_[half]),
                         _mm512_set1_ps(row_scales_[row]));
  }

 private:
  const float* row_scales_;
  __m512 scale_[2];
  __m512i offset_[2];
};

// The step after the products: what is added to one row of sums, and where it goes.
template <bool kGates, typename Sum>
inline void finish_rows(const ProductTask& shared, int64_t panel, const Sum* sums, int first_row, int rows) {
  const ProductTask task = shared;  // the stores cannot alias a copy: its fields stay in registers
  const SumReader<Sum> read(task, panel);
  constexpr int kColumns = kGates ? kPanelColumns / 2 : kPanelColumns;
  const int64_t column = panel * kColumns;
  const __mmask16 low = first_lanes(task.columns - column);
  const __mmask16 high = kGates ? 0 : first_lanes(task.columns - column - 16);
  const __mmask16 second = kGates ? low : high;  // lanes of the second half of the sums
  __m512 bias0 = _mm512_setzero_ps(), bias1 = bias0;
  if (task.bias != nullptr) {
    bias0 = _mm512_maskz_loadu_ps(low, task.bias + column);
    bias1 = _mm512_maskz_loadu_ps(second, task.bias + column + (kGates ? task.columns : 16));
  }
  for (int r = 0; r < rows; ++r) {
    const int64_t to = task.out_rows[first_row + r];
    if (to < 0) continue;
    __m512 x0 = _mm512_add_ps(read(sums + r * kPanelColumns, first_row + r, 0), bias0);
    __m512 x1 = _mm512_add_ps(read(sums + r * kPanelColumns, first_row + r, 1), bias1);
    if (kGates) {
      x0 = _mm512_mul_ps(x0, gelu_lanes(x1));
    } else {
      if (task.row_bias != nullptr) {
        const uint16_t* row_bias = task.row_bias + task.images[first_row + r] * task.row_bias_stride + column;
        x0 = _mm512_add_ps(x0, load_bf16(row_bias, low));
        x1 = _mm512_add_ps(x1, load_bf16(row_bias + 16, high));
      }
      if (task.activation != Activation::kNone) {
        x0 = activate_lanes(task.activation, x0);
        x1 = activate_lanes(task.activation, x1);
      }
    }
    if (task.residual != nullptr) {
      const uint16_t* residual = task.residual + to * task.columns + column;
      x0 = _mm512_add_ps(x0, load_bf16(residual, low));
      if (!kGates) x1 = _mm512_add_ps(x1, load_bf16(residual + 16, high));
    }
    uint16_t* out = task.out + to * task.columns + column;
    store_bf16(out, low, x0);
    if (!kGates) store_bf16(out + 16, high, x1);
  }
}

// Brings what finish_rows() will touch into the nearest cache, in time for the end of a product.
inline void prefetch_rows(const ProductTask& task, int64_t panel, int first_row, int rows) {
  const int64_t column = panel * (task.has_gates ? kPanelColumns / 2 : kPanelColumns);
  for (int r = first_row; r < first_row + rows; ++r) {
    if (task.out_rows[r] < 0) continue;
    const int64_t offset = task.out_rows[r] * task.columns + column;
    __builtin_prefetch(task.out + offset, 1);
    if (task.residual != nullptr) __builtin_prefetch(task.residual + offset);
  }
}

// The sums of a block that wait to be finished.
template <typename Sum>
struct Waiting {
  const ProductTask* task;
  int64_t panel;
  const Sum* sums;
  int row, rows;  // that are left
  int at_once;

  [[gnu::noinline]] void finish_some() {
    const int some = smaller(at_once, rows);
    (task->has_gates ? finish_rows<true, Sum> : finish_rows<false, Sum>)(*task, panel, sums, row, some);
    sums += some * kPanelColumns;
    row += some;
    rows -= some;
  }
};

// Panel by panel; the weights of a chunk of steps are read once from afar and then serve all rows, whose sums
// wait in `sums` between chunks.
template <typename Unit>
void multiply_slab(const ProductTask& task) {
  using Sum = typename Unit::Sum;
  [[maybe_unused]] const typename Unit::Session session;
  const int block_rows = Unit::block_rows(task.rows);
  Waiting<Sum> waiting = {};  // the block before
  for (int64_t p = task.first_panel; p < task.first_panel + task.panel_count; ++p) {
    const uint16_t* panel = task.panels + p * task.panel_elements;
    for (int begin = 0; begin < task.step_count; begin += task.chunk_steps) {
      const int steps = smaller(task.chunk_steps, task.step_count - begin);
      const bool is_last = begin + steps == task.step_count;
      const uint16_t* weights = panel + begin * kStepElements;
      // Every block of rows fetches its share of the chunk that follows this one in memory.
      const bool is_end = is_last && p + 1 == task.first_panel + task.panel_count;
      const int lines = is_end ? 0 : (kStepLines * block_rows + task.rows - 1) / task.rows;
      for (int row = 0; row < task.rows; row += block_rows) {
        while (row < task.rows && task.out_rows[row] < 0) ++row;  // borders between images
        if (row == task.rows) break;
        const int rows = smaller(block_rows, task.rows - row);
        // With a single chunk nothing waits, and one place in the nearest cache serves all blocks.
        Sum* sums = static_cast<Sum*>(task.sums) + (steps == task.step_count ? 0 : row * kPanelColumns);
        if (is_last) prefetch_rows(task, p, row, rows);
        const Ahead ahead = {weights + steps * (kStepElements + row / block_rows * lines * 32), lines};
        const uint16_t* slab = task.slab + row * kStepChannels;
        const Step* first = task.steps + begin;
        if constexpr (Unit::kFinishesBeside) {
          // As many rows per step as make the place of the sums free at the end; a few at least, for a start
          // costs as much as a row.
          waiting.at_once = larger(4, (waiting.rows + steps - 1) / steps);
          Unit::multiply(slab, first, steps, weights, sums, rows, begin == 0, ahead, &waiting);
          if (is_last) waiting = {&task, p, sums, row, rows, rows};
        } else {
          Unit::multiply(slab, first, steps, weights, sums, rows, begin == 0, ahead);
          if (is_last) Waiting<Sum>{&task, p, sums, row, rows, rows}.finish_some();
        }
      }
    }
  }
  if (waiting.rows > 0) waiting.finish_some();
}

inline void pack_slab(const PackTask& task) {
  const int64_t blocks = task.channels / kStepChannels;
  const auto tail = static_cast<__mmask32>((uint64_t{1} << task.channels % kStepChannels) - 1);
  const int64_t block_stride = task.slab_rows * kStepChannels;
  for (int64_t r = 0; r < task.rows; ++r) {
    uint16_t* to = task.slab + r * kStepChannels;
    if (task.sources[r] < 0) {
      for (int64_t b = 0; b < blocks + (tail != 0); ++b)
        _mm512_store_si512(to + b * block_stride, _mm512_setzero_si512());
      continue;
    }
    const uint16_t* from = task.from + task.sources[r] * task.channels;
    for (int64_t b = 0; b < blocks; ++b)
      _mm512_store_si512(to + b * block_stride, _mm512_loadu_si512(from + b * kStepChannels));
    if (tail != 0)
      _mm512_store_si512(to + blocks * block_stride,
                         _mm512_maskz_loadu_epi16(tail, from + blocks * kStepChannels));
  }
}
