// The most that one core multiplies in bfloat16: the innermost loop of the kernels over data that never
// leaves the nearest cache. Random numbers, not zeros: some CPUs lower their clock for real ones.
//   matrix_peak avx512_bf16|amx_bf16     prints GFLOP/s of one core
#include <immintrin.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

namespace {

alignas(64) uint16_t a[8 * 1024], b[8 * 1024];

double cpu_seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// 14 rows of 32 columns, 16 channel pairs at a time. Returns the flops of `count` turns.
double run_avx512(int64_t count) {
  constexpr int kRows = 14;
  __m512 sum[kRows][2];
  for (auto& row : sum) row[0] = row[1] = _mm512_setzero_ps();
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t* x = a + i % 8 * 1024;
    const uint16_t* w = b + i % 8 * 1024;
#pragma GCC unroll 4
    for (int p = 0; p < 16; ++p) {
      const auto w0 = (__m512bh)_mm512_load_si512(w + p * 32),
                 w1 = (__m512bh)_mm512_load_si512(w + 512 + p * 32);
#pragma GCC unroll 14
      for (int r = 0; r < kRows; ++r) {
        int32_t pair;
        std::memcpy(&pair, x + r * 32 + p * 2, sizeof(pair));
        const auto both = (__m512bh)_mm512_set1_epi32(pair);
        sum[r][0] = _mm512_dpbf16_ps(sum[r][0], both, w0);
        sum[r][1] = _mm512_dpbf16_ps(sum[r][1], both, w1);
      }
    }
  }
  for (auto& row : sum) asm volatile("" ::"v"(row[0]), "v"(row[1]));
  return 2.0 * kRows * 32 * 32 * static_cast<double>(count);
}

double run_amx(int64_t count) {
  struct alignas(64) Config {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
  const Config config;
  const int64_t stride = 64;
  asm volatile("ldtilecfg %0" ::"m"(config));
  asm volatile("tilezero %tmm0\n tilezero %tmm1\n tilezero %tmm2\n tilezero %tmm3");
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t* x = a + i % 8 * 1024;
    const uint16_t* w = b + i % 8 * 1024;
    asm volatile(
        "tileloadd (%0,%2,1), %%tmm4\n tileloadd (%1,%2,1), %%tmm6\n tdpbf16ps %%tmm6, %%tmm4, %%tmm0\n"
        "tileloadd 1024(%1,%2,1), %%tmm7\n tdpbf16ps %%tmm7, %%tmm4, %%tmm1\n"
        "tileloadd 1024(%0,%2,1), %%tmm5\n tdpbf16ps %%tmm6, %%tmm5, %%tmm2\n tdpbf16ps %%tmm7, %%tmm5, "
        "%%tmm3" ::"r"(x),
        "r"(w), "r"(stride)
        : "memory");
  }
  asm volatile("tilerelease");
  return 2.0 * 32 * 32 * 32 * static_cast<double>(count);
}

}  // namespace

int main(int, char** arguments) {
  uint32_t state = 1;
  auto fill = [&](uint16_t* to) {
    for (int i = 0; i < 8 * 1024; ++i) {
      state = state * 1664525u + 1013904223u;
      const float x = static_cast<float>(state >> 8) / (1 << 23) - 1.0f;
      uint32_t bits;
      std::memcpy(&bits, &x, sizeof(bits));
      to[i] = static_cast<uint16_t>(bits >> 16);
    }
  };
  fill(a);
  fill(b);
  const bool is_amx = std::string(arguments[1]) == "amx_bf16";
  if (is_amx && syscall(SYS_arch_prctl, 0x1023, 18) != 0) return 1;
  double best = 0.0;
  for (int i = 0; i < 20; ++i) {
    const double begin = cpu_seconds();
    const double flops = is_amx ? run_amx(400000) : run_avx512(400000);
    const double rate = flops / (cpu_seconds() - begin) / 1e9;
    if (rate > best) best = rate;
  }
  std::printf("%.1f\n", best);
}
