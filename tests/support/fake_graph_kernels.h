/* The kernels of the graph's operators, computed program by program from their descriptions in kernels/, so that a
 * wrong grid, stride or constant shows. Included by fake_cuda.c. What a kernel was promised is checked. */

typedef struct { int dtype; const char *facts; unsigned gx, gy; void **parameters; } Job;

/* A compile-time constant of the kernel: "WIDTH" of "APPLY=1 WIDTH=16". */
static int64_t constant(const Job *job, const char *name) {
  size_t length = strlen(name);
  for (const char *at = job->facts; (at = strstr(at, name)); at += length)
    if ((at == job->facts || at[-1] == ' ') && at[length] == '=') return strtol(at + length + 1, NULL, 10);
  return 0;
}
#define J(type, i) (*(type *)job->parameters[i])
static int misaligned(const Job *job, int pointers) {
  for (int i = 0; i < pointers; ++i)
    if (J(uint64_t, i) % 16) return 1;
  return 0;
}

static int group_norm(const Job *job) {
  int64_t rows = J(int, 7), channels = J(int, 8), groups = J(int, 9), per_chunk = J(int, 10), bias_batch = J(int, 11);
  int64_t width = channels / groups, most = constant(job, "CHUNKS");
  int is_apply = constant(job, "APPLY"), has_silu = constant(job, "SILU"), has_bias = constant(job, "BIAS");
  if (misaligned(job, 6)) return MISALIGNED;
  if (width > constant(job, "WIDTH") || job->gx > most || per_chunk * job->gx < rows) return INVALID_VALUE;
  for (unsigned y = 0; y < job->gy; ++y)
    for (unsigned chunk = 0; chunk < job->gx; ++chunk) {
      int64_t image = y / groups, group = y % groups, first = chunk * per_chunk;
      int64_t last = first + per_chunk < rows ? first + per_chunk : rows;
      float *moments = (float *)J(uint64_t, 4) + (int64_t)y * most * 2;
      double mean = 0, square = 0, count = 0;
      for (int64_t k = 0; is_apply && k < most; ++k) { /* of all chunks, with what each found */
        double n = rows - k * per_chunk < per_chunk ? (double)(rows - k * per_chunk) : (double)per_chunk;
        if (n <= 0) break;
        double shift = moments[2 * k] - mean, together = count + n * (double)width;
        square += moments[2 * k + 1] + shift * shift * count * n * (double)width / together;
        mean += shift * n * (double)width / together;
        count = together;
      }
      double inverse = is_apply ? 1 / sqrt(square / count + J(float, 6)) : 0;
      for (int pass = 0; pass < 2; ++pass)
        for (int64_t row = first; row < last; ++row)
          for (int64_t i = group * width; i < (group + 1) * width; ++i) {
            int64_t at = (image * rows + row) * channels + i;
            double value = load(J(uint64_t, 0), at, job->dtype);
            if (has_bias) value += load(J(uint64_t, 5), image * bias_batch + i, job->dtype);
            if (!is_apply) {
              if (pass == 0) mean += value / (double)((last - first) * width);
              else square += (value - mean) * (value - mean);
            } else if (pass == 0) {
              double y_value = (value - mean) * inverse * load(J(uint64_t, 2), i, FP32) + load(J(uint64_t, 3), i, FP32);
              store(J(uint64_t, 1), at, (float)(has_silu ? y_value / (1 + exp(-y_value)) : y_value), job->dtype);
            }
          }
      if (is_apply) continue;
      moments[2 * chunk] = (float)mean;
      moments[2 * chunk + 1] = (float)square;
    }
  return OK;
}

static int layer_norm(const Job *job, int is_even) {
  int64_t channels = J(int, 5);
  if (misaligned(job, 4) || (is_even && channels % 16)) return MISALIGNED;
  if (channels > constant(job, "WIDTH")) return INVALID_VALUE;
  for (int64_t row = 0; row < job->gx; ++row) {
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < channels; ++i) mean += load(J(uint64_t, 0), row * channels + i, job->dtype) / (double)channels;
    for (int64_t i = 0; i < channels; ++i) {
      double away = load(J(uint64_t, 0), row * channels + i, job->dtype) - mean;
      variance += away * away / (double)channels;
    }
    for (int64_t i = 0; i < channels; ++i) {
      double y = (load(J(uint64_t, 0), row * channels + i, job->dtype) - mean) / sqrt(variance + J(float, 4));
      store(J(uint64_t, 1), row * channels + i, (float)(y * load(J(uint64_t, 2), i, FP32) + load(J(uint64_t, 3), i, FP32)), job->dtype);
    }
  }
  return OK;
}

static int geglu(const Job *job, int is_even) {
  int64_t channels = J(int, 2), block = constant(job, "BLOCK");
  if (misaligned(job, 2) || (is_even && channels % 16)) return MISALIGNED;
  for (int64_t row = 0; row < job->gy; ++row)
    for (int64_t i = 0; i < job->gx * block && i < channels; ++i) {
      double value = load(J(uint64_t, 0), row * 2 * channels + i, job->dtype);
      double gate = load(J(uint64_t, 0), (row * 2 + 1) * channels + i, job->dtype);
      store(J(uint64_t, 1), row * channels + i, (float)(value * 0.5 * gate * (1 + erf(gate / sqrt(2)))), job->dtype);
    }
  return OK;
}

static int attention(const Job *job) {
  int64_t heads = J(int, 6), queries = J(int, 7), keys = J(int, 8), width = constant(job, "WIDTH"), rows = constant(job, "ROWS");
  int is_causal = constant(job, "CAUSAL"), has_mask = constant(job, "MASK");
  if (misaligned(job, 5)) return MISALIGNED;
  for (int i = 9; i < 17; ++i)
    if (J(int, i) % 16) return MISALIGNED;
  if (constant(job, "SHORT") && keys > constant(job, "KEYS")) return INVALID_VALUE;
  double *shares = malloc(sizeof(double) * (size_t)(keys + width));
  for (int64_t y = 0; y < job->gy; ++y)
    for (int64_t row = 0; row < job->gx * rows && row < queries; ++row) {
      int64_t image = y / heads, column = y % heads * width;
      double largest = -INFINITY, total = 0, *sums = shares + keys;
      for (int64_t key = 0; key < keys; ++key) {
        double score = 0;
        for (int64_t i = 0; i < width; ++i)
          score += (double)load(J(uint64_t, 0), image * J(int, 9) + row * J(int, 10) + column + i, job->dtype) *
                   load(J(uint64_t, 1), image * J(int, 11) + key * J(int, 12) + column + i, job->dtype);
        score *= J(float, 5);
        if (has_mask) score += load(J(uint64_t, 4), image * J(int, 17) + row * J(int, 18) + key, FP32) * 1.4426950408889634;
        if (is_causal && key > row) score = -INFINITY;
        shares[key] = score;
        largest = fmax(largest, score);
      }
      memset(sums, 0, sizeof(double) * (size_t)width);
      for (int64_t key = 0; key < keys; ++key) {
        double share = largest == -INFINITY ? 0 : exp2(shares[key] - largest);
        total += share;
        for (int64_t i = 0; i < width; ++i)
          sums[i] += share * load(J(uint64_t, 2), image * J(int, 13) + key * J(int, 14) + column + i, job->dtype);
      }
      for (int64_t i = 0; i < width; ++i)
        store(J(uint64_t, 3), image * J(int, 15) + row * J(int, 16) + column + i, (float)(sums[i] / (total == 0 ? 1 : total)), job->dtype);
    }
  free(shares);
  return OK;
}
