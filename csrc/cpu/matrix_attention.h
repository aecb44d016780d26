// Attention over a matrix unit, for 32 queries at a time and without ever holding all logits (Dao et al.
// 2022). Transposed, so that everything per query is one lane of a register: logits are K q^T, [keys][32
// queries], and the output V^T p^T, [channels][32 queries]; neither needs an operation across lanes. The
// running maximum is subtracted before the exponential: logits of any size are safe. Include only inside the
// unnamed namespace of a kernel file, after matrix_product.h.
#pragma once

#include "cpu/matrix_product.h"

inline void transpose_16x16(__m512i r[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 8; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
  }
}

// `count` rows of up to 32 channels, as 16 pairs per row, transposed to pairs[pair][row]. What is not there
// is zero.
inline void load_pairs(const uint16_t* from, int64_t stride, int64_t count, int64_t channels,
                       __m512i pairs[16]) {
  const auto lanes = channels >= 32 ? ~__mmask32{0} : static_cast<__mmask32>((1u << channels) - 1);
  for (int r = 0; r < 16; ++r)
    pairs[r] = r < count ? _mm512_maskz_loadu_epi16(lanes, from + r * stride) : _mm512_setzero_si512();
  transpose_16x16(pairs);
}

inline void pack_head(const PackHeadTask& task) {
  const HeadForm& head = task.head;
  for (int64_t key = task.first; key < task.last; ++key) {
    for (int64_t c = 0; c < head.width; c += 32) {
      const int64_t left = head.width - c;
      const auto lanes = left >= 32 ? ~__mmask32{0} : static_cast<__mmask32>((1u << left) - 1);
      const __m512i x = key < head.keys
                            ? _mm512_maskz_loadu_epi16(lanes, task.keys + key * task.key_stride + c)
                            : _mm512_setzero_si512();
      _mm512_store_si512(head.key_slab + (c / 32 * head.key_rows + key) * 32, x);
    }
  }
  for (int64_t key = task.first; key < task.last; key += 32) {
    uint16_t* block = head.value_slab + key * head.value_rows;
    for (int64_t c = 0; c < head.value_rows; c += 32) {
      for (int half = 0; half < 2; ++half) {
        __m512i pairs[16];
        const int64_t begin = key + half * 16;
        load_pairs(task.values + begin * task.value_stride + c, task.value_stride, head.keys - begin,
                   head.width - c > 0 ? head.width - c : 0, pairs);
        for (int64_t p = 0; p < 16 && c + 2 * p < head.value_rows; ++p) {
          uint16_t* row = block + (c + 2 * p) * 32 + half * 16;
          _mm256_store_si256((__m256i*)row, _mm512_cvtepi32_epi16(pairs[p]));
          _mm256_store_si256((__m256i*)(row + 32), _mm512_cvtepi32_epi16(_mm512_srli_epi32(pairs[p], 16)));
        }
      }
    }
  }
}

// Queries as a panel: [channels / 32][2 halves][16 pairs][16 queries] of pairs.
inline void pack_queries(const AttendTask& task, const uint16_t* q, int64_t count) {
  for (int64_t c = 0; c < task.head.width; c += 32) {
    for (int half = 0; half < 2; ++half) {
      __m512i pairs[16];
      load_pairs(q + half * 16 * task.q_stride + c, task.q_stride, count - half * 16, task.head.width - c,
                 pairs);
      uint16_t* to = task.query_panel + c * 32 + half * 512;
      for (int p = 0; p < 16; ++p) _mm512_store_si512(to + p * 32, pairs[p]);
    }
  }
}

constexpr float kLog2E = 1.44269504f;
constexpr float kForbidden =
    -2e38f;  // a logit that loses against every other, and adds to another one finitely

// Adds the mask to logits that are in units of log2 after this. Keys first .. first + count - 1; `query`
// counts from the task's first.
inline void add_mask(const AttendTask& task, float* logits, int64_t query, int64_t first, int64_t count) {
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512 scale = _mm512_set1_ps(task.scale * kLog2E), floor = _mm512_set1_ps(kForbidden);
  for (int64_t k = 0; k < count; ++k) {
    for (int half = 0; half < 2; ++half) {
      float* row = logits + k * 32 + half * 16;
      const int64_t from = query + half * 16;
      __m512 x = _mm512_mul_ps(_mm512_loadu_ps(row), scale);
      if (task.mask != nullptr) {
        __m512 mask;
        if (task.mask_stride == 0) {
          mask = _mm512_set1_ps(task.mask[first + k]);
        } else {
          alignas(64) float values[16] = {};
          for (int64_t i = 0; i < 16 && from + i < task.queries; ++i)
            values[i] = task.mask[(from + i) * task.mask_stride + first + k];
          mask = _mm512_load_ps(values);
        }
        x = _mm512_max_ps(floor, _mm512_fmadd_ps(mask, _mm512_set1_ps(kLog2E), x));  // keeps a NaN
      }
      if (task.is_causal) {
        const __m512i last =
            _mm512_add_epi32(lane, _mm512_set1_epi32(static_cast<int>(task.first_query + from)));
        x = _mm512_mask_mov_ps(
            x, _mm512_cmplt_epi32_mask(last, _mm512_set1_epi32(static_cast<int>(first + k))), floor);
      }
      _mm512_storeu_ps(row, x);
    }
  }
}

// 2^x for x <= 0, relative error 1e-4: a weight has 8 bits.
inline __m512 exp2_weight(__m512 x) {
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_sub_ps(x, whole);
  __m512 p = _mm512_set1_ps(0.0558011f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.2402281f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.6931419f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, whole);
}

// One half of 16 queries: maximum so far, and sum of the weights relative to it.
struct Running {
  __m512 maximum, sum;
};

// Logits to weights, as a panel [keys / 32][2 halves][16 pairs of keys][16 queries]. Returns by what the sums
// made so far must be multiplied.
inline __m512 weigh(const float* logits, int64_t count, __m512 scale, uint16_t* panel, Running* running) {
  // Four maxima, for one waits several cycles for itself.
  __m512 tops[4] = {running->maximum, running->maximum, running->maximum, running->maximum};
  int64_t seen = 0;
  for (; seen + 4 <= count; seen += 4)
    for (int i = 0; i < 4; ++i) tops[i] = _mm512_max_ps(tops[i], _mm512_loadu_ps(logits + (seen + i) * 32));
  for (; seen < count; ++seen) tops[0] = _mm512_max_ps(tops[0], _mm512_loadu_ps(logits + seen * 32));
  const __m512 top = _mm512_max_ps(_mm512_max_ps(tops[0], tops[1]), _mm512_max_ps(tops[2], tops[3]));
  const __m512 offset = _mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(top, scale));
  const __m512 floor = _mm512_set1_ps(-200.0f);
  auto weight = [&](const float* row) __attribute__((always_inline)) {
    const __m512 x = _mm512_fmadd_ps(_mm512_loadu_ps(row), scale, offset);
    return exp2_weight(_mm512_max_ps(floor, x));  // in this order a NaN stays one
  };
  // Two keys side by side: lower halves of the lanes from the first, upper ones from the second.
  const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,
                                              23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  __m512 sum0 = _mm512_setzero_ps(), sum1 = sum0;
  const int64_t padded = (count + 31) / 32 * 32;
  for (int64_t k = 0; k < padded; k += 2) {
    const __m512 w0 = k < count ? weight(logits + k * 32) : _mm512_setzero_ps();
    const __m512 w1 = k + 1 < count ? weight(logits + k * 32 + 32) : _mm512_setzero_ps();
    sum0 = _mm512_add_ps(sum0, w0);
    sum1 = _mm512_add_ps(sum1, w1);
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(w1, w0);
    _mm512_store_si512(panel + k / 32 * 1024 + k % 32 * 16, _mm512_permutexvar_epi16(interleave, both));
  }
  // The first time the maximum so far is -inf, and 0 the right answer.
  const __m512 change = exp2_lanes(_mm512_mul_ps(_mm512_sub_ps(running->maximum, top), scale));
  running->sum = _mm512_fmadd_ps(running->sum, change, _mm512_add_ps(sum0, sum1));
  running->maximum = top;
  return change;
}

inline void rescale(const AttendTask& task, __m512 change0, __m512 change1) {
  const __m512 one = _mm512_set1_ps(1.0f);
  if ((_mm512_cmpneq_ps_mask(change0, one) | _mm512_cmpneq_ps_mask(change1, one)) == 0) return;
  for (int64_t d = 0; d < task.head.width; ++d) {
    float* row = task.sums + d * 32;
    _mm512_storeu_ps(row, _mm512_mul_ps(_mm512_loadu_ps(row), change0));
    _mm512_storeu_ps(row + 16, _mm512_mul_ps(_mm512_loadu_ps(row + 16), change1));
  }
}

// sums[channel][query] / sum[query] to out[query][channel].
inline void store_queries(const AttendTask& task, const Running running[2], uint16_t* out, int64_t count) {
  for (int half = 0; half < 2; ++half) {
    const __m512 inverse = _mm512_div_ps(_mm512_set1_ps(1.0f), running[half].sum);
    for (int64_t c = 0; c < task.head.width; c += 16) {
      __m512i rows[16];
      for (int d = 0; d < 16; ++d)
        rows[d] = _mm512_castps_si512(
            _mm512_mul_ps(_mm512_loadu_ps(task.sums + (c + d) * 32 + half * 16), inverse));
      transpose_16x16(rows);
      const __mmask16 lanes = first_lanes(task.head.width - c);
      for (int64_t i = 0; i < 16 && half * 16 + i < count; ++i)
        store_bf16(out + (half * 16 + i) * task.out_stride + c, lanes, _mm512_castsi512_ps(rows[i]));
    }
  }
}

// Rows of a slab times a panel, for all rows; brings closer what lies `ahead` elements behind them, the part
// of the slab that comes next.
template <typename Unit>
void multiply_rows_of(const uint16_t* a, const Step* steps, int64_t step_count, const uint16_t* b,
                      float* sums, int64_t rows, bool is_first, int64_t ahead) {
  const int block = Unit::block_rows(static_cast<int>(rows));
  for (int64_t row = 0; row < rows; row += block) {
    const int some = smaller(block, static_cast<int>(rows - row));
    for (int64_t s = 0; s < step_count; ++s)
      for (int r = 0; r < some; ++r)
        _mm_prefetch(reinterpret_cast<const char*>(a + (row + r) * 32 + steps[s].offset + ahead),
                     _MM_HINT_T1);
    Unit::multiply(a + row * 32, steps, static_cast<int>(step_count), b, sums + row * 32, some, is_first,
                   Ahead{b, 0});
  }
}

template <typename Unit>
void attend_block(const AttendTask& task, int64_t query) {
  const HeadForm& head = task.head;
  const int64_t count = smaller(kQueryBlock, static_cast<int>(task.queries - query));
  const int64_t key_steps = (head.width + 31) / 32;
  Step* weight_steps = task.steps + key_steps;
  for (int64_t s = 0; s < key_steps; ++s)
    task.steps[s] = {static_cast<int32_t>(s * head.key_rows * 32),
                     smaller(16, static_cast<int>(head.width - s * 32 + 1) / 2)};
  pack_queries(task, task.q + query * task.q_stride, count);

  const bool is_masked = task.mask != nullptr || task.is_causal;
  const __m512 scale = _mm512_set1_ps(is_masked ? 1.0f : task.scale * kLog2E);
  const __m512 lowest = _mm512_set1_ps(-__builtin_inff());
  Running running[2] = {{lowest, _mm512_setzero_ps()}, {lowest, _mm512_setzero_ps()}};
  const int64_t after = task.first_query + query + count;  // a causal block sees no key from there on
  const int64_t keys = task.is_causal && after < head.keys ? after : head.keys;
  for (int64_t first = 0; first < keys; first += Unit::kKeys) {
    const int64_t some = smaller(Unit::kKeys, static_cast<int>(keys - first));
    multiply_rows_of<Unit>(head.key_slab + first * 32, task.steps, key_steps, task.query_panel, task.logits,
                           some, true, Unit::kKeys * 32);
    if (is_masked) add_mask(task, task.logits, query, first, some);
    const __m512 change0 = weigh(task.logits, some, scale, task.weight_panel, &running[0]);
    const __m512 change1 = weigh(task.logits + 16, some, scale, task.weight_panel + 512, &running[1]);
    if (first > 0) rescale(task, change0, change1);
    for (int64_t s = 0; s * 32 < some; ++s)
      weight_steps[s] = {static_cast<int32_t>(s * head.value_rows * 32),
                         smaller(16, static_cast<int>(some - s * 32 + 1) / 2)};
    multiply_rows_of<Unit>(head.value_slab + first * head.value_rows, weight_steps, (some + 31) / 32,
                           task.weight_panel, task.sums, head.width, first == 0,
                           Unit::kKeys * head.value_rows);
  }
  store_queries(task, running, task.out + query * task.out_stride, count);
}

template <typename Unit>
void attend(const AttendTask& task) {
  [[maybe_unused]] const typename Unit::Session session;
  for (int64_t query = 0; query < task.queries; query += kQueryBlock) attend_block<Unit>(task, query);
}
