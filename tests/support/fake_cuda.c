/* A CUDA driver without a GPU, for tests: records every call, can make any of them fail, and computes the
 * kernels on the host, whose memory is also the device's. A "cubin" is text, constants last: "geglu fp16 any|BLOCK=4".
 * Built by fake_cuda.py; controlled through the fake_* functions. */
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, INVALID_IMAGE = 200, INVALID_HANDLE = 400, NOT_FOUND = 500,
       ILLEGAL_ADDRESS = 700, MISALIGNED = 716 };
enum { FP32, FP16, BF16 };
enum { MAX_LIVE = 4096, MAX_DEPTH = 64, LOG_BYTES = 1 << 22 };
typedef struct { char text[64]; char function[64]; char facts[128]; } Module;
typedef struct { void *at; size_t bytes; const char *kind; int device; } Object;

static char *log_text;
static size_t log_used;
static Object live[MAX_LIVE];
/* Devices of the contexts that this thread has pushed. */
static _Thread_local int current[MAX_DEPTH], context_depth;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the log and of what is alive */
static int retained, sticky, device_count = 1, driver_version = 12040, architecture = 90;
static _Thread_local int has_context;
static char fail_name[64];
static int fail_after, fail_result, fresh = 0xFF; /* NaN, so that nothing unwritten goes unseen */

void fake_reset(void) {
  if (!log_text) log_text = malloc(LOG_BYTES);
  log_used = 0;
  log_text[0] = 0;
  context_depth = retained = sticky = has_context = current[0] = 0;
  device_count = 1; driver_version = 12040; architecture = 90;
  fail_name[0] = 0;
  fresh = 0xFF;
  memset(live, 0, sizeof live);
}
const char *fake_log(void) { return log_text; }
void fake_clear_log(void) { log_used = 0; log_text[0] = 0; }
void fake_device(int count, int version, int arch) { device_count = count; driver_version = version; architecture = arch; }
/* What new memory is filled with. */
void fake_fill(int byte) { fresh = byte; }
/* The call number `after` (from 0) of that name, or of any name where it is "*", answers `result`. */
void fake_fail(const char *name, int after, int result) { strncpy(fail_name, name, 63); fail_after = after; fail_result = result; }
void fake_heal(void) { sticky = 0; }
int fake_live(const char *kind) {
  int count = 0;
  for (int i = 0; i < MAX_LIVE; ++i) count += live[i].at && !strcmp(live[i].kind, kind);
  return count;
}
int fake_context_depth(void) { return context_depth; }
int fake_retained(void) { return retained; }

static int record_locked(const char *name, const char *detail, int needs_context) {
  if (!log_text) fake_reset();
  if (log_used + 256 < LOG_BYTES) log_used += (size_t)snprintf(log_text + log_used, 256, "%s%s%s\n", name, *detail ? " " : "", detail);
  if (fail_name[0] && (!strcmp(fail_name, "*") || !strcmp(fail_name, name)) && fail_after-- == 0) {
    fail_name[0] = 0;
    if (fail_result >= 700) sticky = fail_result;
    return fail_result;
  }
  if (sticky) return sticky;
  return needs_context && context_depth == 0 && !has_context ? INVALID_CONTEXT : OK;
}
static int record(const char *name, const char *detail, int needs_context) {
  pthread_mutex_lock(&lock);
  int result = record_locked(name, detail, needs_context);
  pthread_mutex_unlock(&lock);
  return result;
}
/* For the runtime above the driver (fake_cudart): its calls are in the same log and fail in the same way. */
int fake_record(const char *name, const char *detail) { return record(name, detail, 0); }
/* It makes a device's context current for the thread by itself, below those that are pushed. */
void fake_set_current(int device) { has_context = 1; current[0] = device; }

#define CALL(needs, ...) \
  char detail[192] = ""; \
  snprintf(detail, sizeof detail, "" __VA_ARGS__); \
  int result = record(__func__, detail, needs); \
  if (result != OK) return result;

static int here(void) { return current[context_depth]; }
static void *keep(void *at, size_t bytes, const char *kind) {
  pthread_mutex_lock(&lock);
  int i = 0;
  while (i < MAX_LIVE && live[i].at) ++i;
  if (i < MAX_LIVE) live[i] = (Object){at, bytes, kind, here()};
  pthread_mutex_unlock(&lock);
  return i < MAX_LIVE ? at : NULL;
}
static int drop(void *at, const char *kind) {
  pthread_mutex_lock(&lock);
  int i = 0;
  while (i < MAX_LIVE && (live[i].at != at || strcmp(live[i].kind, kind))) ++i;
  if (i < MAX_LIVE) live[i].at = NULL;
  pthread_mutex_unlock(&lock);
  if (i == MAX_LIVE) return INVALID_VALUE;
  free(at);
  return OK;
}
/* Memory, and a stream, event or function, of the current context's device alone. */
static int is_memory(uint64_t at, size_t bytes) {
  for (int i = 0; i < MAX_LIVE; ++i)
    if (live[i].at && live[i].device == here() && !strcmp(live[i].kind, "memory") && at >= (uint64_t)live[i].at && at + bytes <= (uint64_t)live[i].at + live[i].bytes) return 1;
  return 0;
}
int fake_is_memory(uint64_t at, size_t bytes) { /* of any device */
  for (int i = 0; i < MAX_LIVE; ++i)
    if (live[i].at && !strcmp(live[i].kind, "memory") && at >= (uint64_t)live[i].at && at + bytes <= (uint64_t)live[i].at + live[i].bytes) return 1;
  return 0;
}

static int is_here(const void *object) {
  for (int i = 0; i < MAX_LIVE; ++i)
    if (live[i].at == object) return live[i].device == here();
  return 0;
}
#define HERE(object) if (!is_here(object)) return INVALID_HANDLE;

int cuInit(unsigned flags) { CALL(0, "%u", flags) return OK; }
int cuDriverGetVersion(int *version) { CALL(0) *version = driver_version; return OK; }
int cuGetErrorName(int result, const char **name) {
  *name = result == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : result == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_FAKE";
  return OK;
}
int cuGetErrorString(int result, const char **text) { (void)result; *text = "made for a test"; return OK; }
int cuDeviceGetCount(int *count) { CALL(0) *count = device_count; return device_count ? OK : 100; }
int cuDeviceGet(int *id, int ordinal) { CALL(0, "%d", ordinal) *id = 40 + ordinal; return OK; }
int cuDeviceGetName(char *name, int bytes, int id) { CALL(0) snprintf(name, (size_t)bytes, "Fake %d", id - 40); return OK; }
int cuDeviceGetAttribute(int *value, int attribute, int id) {
  CALL(0, "%d %d", attribute, id)
  *value = attribute == 75 ? architecture / 10 : attribute == 76 ? architecture % 10 : 132;
  return OK;
}
int cuDeviceTotalMem_v2(size_t *bytes, int id) { CALL(0, "%d", id) *bytes = (size_t)1 << 34; return OK; }
int cuDevicePrimaryCtxRetain(void **context, int id) { CALL(0, "%d", id) ++retained; *context = (void *)(uint64_t)(0xC0 + id - 40); return OK; }
int cuDevicePrimaryCtxRelease_v2(int id) { CALL(0, "%d", id) --retained; return OK; }
int cuCtxPushCurrent_v2(void *context) { CALL(0, "%p", context) current[++context_depth] = (int)((uint64_t)context - 0xC0); return OK; }
int cuCtxPopCurrent_v2(void **context) { record(__func__, "", 0); *context = (void *)(uint64_t)(0xC0 + here()); --context_depth; return OK; }
int cuModuleLoadData(void **module, const void *image) {
  CALL(1, "%s", (const char *)image)
  const char *text = image, *ptx = strstr(text, "\n// fake "); /* PTX says its kernel in a comment */
  if (strncmp(text, "cubin ", 6) && (!strstr(text, "\n.version ") || !ptx)) return INVALID_IMAGE;
  Module *made = calloc(1, sizeof *made);
  const char *words = ptx ? ptx + 9 : text + 6, *bar = strchr(words, '|');
  snprintf(made->text, sizeof made->text, "%.*s", bar ? (int)(bar - words) : 63, words);
  if (bar) snprintf(made->facts, sizeof made->facts, "%s", bar + 1);
  *module = keep(made, sizeof *made, "module");
  return OK;
}
int cuModuleUnload(void *module) { CALL(1) return drop(module, "module"); }
int cuModuleGetFunction(void **function, Module *module, const char *name) {
  CALL(1, "%s", name)
  if (strncmp(module->text, name, strlen(name))) return NOT_FOUND;
  strncpy(module->function, name, 63);
  *function = module;
  return OK;
}
int cuFuncSetAttribute(void *function, int attribute, int value) { (void)function; CALL(1, "%d %d", attribute, value) return OK; }
int cuStreamCreate(void **stream, unsigned flags) { CALL(1, "%u", flags) *stream = keep(malloc(8), 8, "stream"); return OK; }
int cuStreamDestroy_v2(void *stream) { CALL(1) HERE(stream) return drop(stream, "stream"); }
int cuStreamSynchronize(void *stream) { CALL(1) HERE(stream) return OK; }
int cuEventCreate(void **event, unsigned flags) { CALL(1, "%u", flags) *event = keep(malloc(8), 8, "event"); return OK; }
int cuEventDestroy_v2(void *event) { CALL(1) return drop(event, "event"); }
int cuEventRecord(void *event, void *stream) { CALL(1) HERE(event) HERE(stream) return OK; }
int cuEventSynchronize(void *event) { (void)event; CALL(1) return OK; }
int cuEventElapsedTime(float *ms, void *start, void *end) { (void)start; (void)end; CALL(1) *ms = 1.0f; return OK; }
int cuMemAlloc_v2(uint64_t *pointer, size_t bytes) {
  CALL(1, "%zu", bytes)
  void *memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
  memset(memory, fresh, bytes);
  *pointer = (uint64_t)keep(memory, bytes, "memory");
  return OK;
}
int cuMemFree_v2(uint64_t pointer) { CALL(1) return drop((void *)pointer, "memory"); }
int cuMemAllocHost_v2(void **pointer, size_t bytes) { CALL(1, "%zu", bytes) *pointer = keep(malloc(bytes), bytes, "pinned"); return OK; }
int cuMemFreeHost(void *pointer) { CALL(1) return drop(pointer, "pinned"); }
int cuMemGetInfo_v2(size_t *unused, size_t *total) { CALL(1) *unused = 1000; *total = (size_t)1 << 34; return OK; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
  CALL(1, "%zu", bytes)
  HERE(stream)
  if (!is_memory(to, bytes)) return sticky = ILLEGAL_ADDRESS;
  memcpy((void *)to, from, bytes);
  return OK;
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *stream) {
  CALL(1, "%zu", bytes)
  HERE(stream)
  if (!is_memory(to, bytes) || !is_memory(from, bytes)) return sticky = ILLEGAL_ADDRESS;
  memcpy((void *)to, (void *)from, bytes);
  return OK;
}
/* Memory of another library: a tensor that comes in by DLPack. */
uint64_t fake_give(int device, size_t bytes) {
  current[++context_depth] = device;
  void *memory = keep(calloc(1, bytes + 256), bytes + 256, "memory");
  --context_depth;
  return (uint64_t)memory;
}
void fake_take_back(uint64_t memory) { drop((void *)memory, "memory"); }
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
  CALL(1, "%zu", bytes)
  HERE(stream)
  if (!is_memory(from, bytes)) return sticky = ILLEGAL_ADDRESS;
  memcpy(to, (void *)from, bytes);
  return OK;
}
/* ---- the kernels, from their descriptions in kernels/ ---- */
#define P(type, i) (*(type *)parameters[i])
static float load(uint64_t at, int64_t i, int dtype) {
  if (dtype == FP16) return (float)((_Float16 *)at)[i];
  if (dtype == FP32) return ((float *)at)[i];
  uint32_t bits = (uint32_t)((uint16_t *)at)[i] << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
static void store(uint64_t at, int64_t i, float value, int dtype) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  if (dtype == FP16) ((_Float16 *)at)[i] = (_Float16)value;
  else if (dtype == FP32) ((float *)at)[i] = value;
  else ((uint16_t *)at)[i] = (uint16_t)(isnan(value) ? 0x7FC0 : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
#include "fake_graph_kernels.h"

static float normal(uint64_t seed, uint64_t draw, int64_t element) {
  uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
  uint32_t x[4] = {(uint32_t)(element / 32 * 8 + element % 8), 0, (uint32_t)draw, (uint32_t)(draw >> 32)};
  for (int round = 0; round < 10; ++round) {
    uint64_t a = (uint64_t)0xD2511F53u * x[0], b = (uint64_t)0xCD9E8D57u * x[2];
    uint32_t next[4] = {(uint32_t)(b >> 32) ^ x[1] ^ key[0], (uint32_t)b, (uint32_t)(a >> 32) ^ x[3] ^ key[1], (uint32_t)a};
    memcpy(x, next, sizeof x);
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  int quarter = (int)(element / 8 % 4);
  uint32_t first = x[quarter / 2 * 2], second = x[quarter / 2 * 2 + 1];
  double u1 = (float)((double)(float)(first >> 1) * 0x1p-31 + 0x1p-32), u2 = (second >> 8) * 0x1p-24;
  double radius = sqrt(-2.0 * log(u1)), angle = 2.0 * 3.14159265358979323846 * u2;
  return (float)(radius * (quarter % 2 ? sin(angle) : cos(angle)));
}

static int combine(void **parameters, int dtype, int has_noise) {
  int64_t size = P(int, 62), images = P(int, 63), per_run = P(int, 64), halves = P(int, 65);
  for (int64_t image = 0; image < images; ++image) {
    int64_t start = image / per_run * per_run, count = images - start < per_run ? images - start : per_run;
    int64_t negative = halves == 2 ? image + start : image, positive = halves == 2 ? negative + count : image;
    for (int64_t i = 0; i < size; ++i) {
      float total = 0;
      for (int k = 0; k < 8; ++k)
        if (P(float, 8 + k) != 0) total += P(float, 8 + k) * load(P(uint64_t, k), image * size + i, 0);
      for (int k = 0; k < 8; ++k) {
        int row = P(int, 40 + k);
        float factor = row < 0 ? 1.0f : load(P(uint64_t, 48), row * images + image, 0);
        if (P(float, 24 + k) != 0) total += P(float, 24 + k) * factor * load(P(uint64_t, 16 + k), positive * size + i, dtype);
        if (P(float, 32 + k) != 0) total += P(float, 32 + k) * factor * load(P(uint64_t, 16 + k), negative * size + i, dtype);
      }
      if (has_noise) total += P(float, 49) * normal(((uint64_t *)P(uint64_t, 50))[image], P(uint64_t, 51), i);
      if (!isfinite(total) && *(int *)P(uint64_t, 60) > P(int, 61)) *(int *)P(uint64_t, 60) = P(int, 61);
      if (i < P(int, 53)) ((float *)P(uint64_t, 52))[image * size + i] = total;
      float scaled = total * P(float, 55);
      for (int half = 0; half < P(int, 56); ++half) {
        int64_t at = (half == 0 ? positive : negative) * size + i;
        store(P(uint64_t, 54), at, scaled, dtype);
      }
    }
  }
  if (P(int, 59) > 0) memcpy((void *)P(uint64_t, 58), (void *)P(uint64_t, 57), 4 * (size_t)P(int, 59));
  return OK;
}

static int langevin_step(void **parameters, int has_noise) {
  int64_t size = P(int, 10), images = P(int, 11);
  double noise_norm[64], score_norm[64], all_noise = 0, all_score = 0;
  for (int64_t image = 0; image < images; ++image) {
    double z2 = 0, s2 = 0;
    for (int64_t i = 0; i < size; ++i) {
      double z = has_noise ? normal(((uint64_t *)P(uint64_t, 4))[image], P(uint64_t, 5), i) : load(P(uint64_t, 2), image * size + i, 0);
      double s = load(P(uint64_t, 1), image * size + i, 0);
      z2 += z * z;
      s2 += s * s;
    }
    all_noise += noise_norm[image] = sqrt(z2);
    all_score += score_norm[image] = sqrt(s2);
  }
  for (int64_t image = 0; image < images; ++image) {
    double ratio = P(int, 7) ? all_noise / all_score : noise_norm[image] / score_norm[image];
    double step = P(double, 6) * ratio * ratio;
    for (int64_t i = 0; i < size; ++i) {
      float z = has_noise ? normal(((uint64_t *)P(uint64_t, 4))[image], P(uint64_t, 5), i) : load(P(uint64_t, 2), image * size + i, 0);
      float total = load(P(uint64_t, 0), image * size + i, 0) + (float)step * load(P(uint64_t, 1), image * size + i, 0) + (float)sqrt(2 * step) * z;
      if (!isfinite(total) && *(int *)P(uint64_t, 8) > P(int, 9)) *(int *)P(uint64_t, 8) = P(int, 9);
      ((float *)P(uint64_t, 3))[image * size + i] = total;
    }
  }
  return OK;
}

static int rescale(void **parameters, int dtype) {
  int64_t size = P(int, 5), images = P(int, 6), per_run = P(int, 7);
  for (int64_t image = 0; image < images; ++image) {
    int64_t start = image / per_run * per_run, count = images - start < per_run ? images - start : per_run;
    double sums[4] = {0};
    for (int64_t i = 0; i < size; ++i) {
      double negative = load(P(uint64_t, 0), (image + start) * size + i, dtype);
      double positive = load(P(uint64_t, 0), (image + start + count) * size + i, dtype);
      double guided = negative + P(double, 3) * (positive - negative);
      sums[0] += positive; sums[1] += positive * positive; sums[2] += guided; sums[3] += guided * guided;
    }
    double n = (double)size, plain = sums[1] - sums[0] / n * sums[0], whole = sums[3] - sums[2] / n * sums[2];
    double ratio = whole > 1e-13 * sums[3] ? sqrt(plain / whole) : 1.0; /* 1: flat but for rounding */
    ((float *)P(uint64_t, 1))[P(int, 2) * images + image] = (float)(P(double, 4) * ratio + 1 - P(double, 4));
  }
  return OK;
}

static int by_size(const void *a, const void *b) { return (*(float *)a > *(float *)b) - (*(float *)a < *(float *)b); }
static int threshold(void **parameters, unsigned images) {
  int64_t size = P(int, 5);
  for (unsigned image = 0; image < images; ++image) {
    float *x = (float *)P(uint64_t, 0) + image * size, *out = (float *)P(uint64_t, 1) + image * size, *sorted = malloc(4 * (size_t)size);
    for (int64_t i = 0; i < size; ++i) sorted[i] = fabsf(x[i]);
    qsort(sorted, (size_t)size, 4, by_size);
    float low = sorted[P(int, 2)], share = P(float, 3), up = share == 0 ? low : sorted[P(int, 2) + 1];
    float bound = fminf(fmaxf(low + share * (up - low), 1), P(float, 4));
    for (int64_t i = 0; i < size; ++i) out[i] = fminf(fmaxf(x[i], -bound), bound) / bound;
    free(sorted);
  }
  return OK;
}

static int compute(const Module *function, unsigned gx, unsigned gy, void **parameters) {
  const char *text = function->text, *name = function->function;
  int dtype = strstr(text, "fp16") ? FP16 : strstr(text, "bf16") ? BF16 : FP32, is_even = strstr(text, "even") != NULL;
  int has_noise = strstr(text, "noise") != NULL;
  if (!strcmp(name, "combine")) return combine(parameters, dtype, has_noise);
  if (!strcmp(name, "langevin_step")) return langevin_step(parameters, has_noise);
  if (!strcmp(name, "rescale")) return rescale(parameters, dtype);
  if (!strcmp(name, "threshold")) return threshold(parameters, gx);
  if (!strcmp(name, "clamp")) {
    for (int64_t i = 0; i < P(int, 4); ++i) ((float *)P(uint64_t, 1))[i] = fminf(fmaxf(load(P(uint64_t, 0), i, 0), P(float, 2)), P(float, 3));
    return OK;
  }
  if (!strcmp(name, "blend")) {
    for (int64_t i = 0; i < P(int, 7); ++i) {
      float mask = load(P(uint64_t, 2), i, 0);
      ((float *)P(uint64_t, 1))[i] = mask * load(P(uint64_t, 0), i, 0) + (1 - mask) * (P(float, 5) * load(P(uint64_t, 3), i, 0) + P(float, 6) * load(P(uint64_t, 4), i, 0));
    }
    return OK;
  }
  Job job = {dtype, function->facts, gx, gy, parameters};
  if (!strcmp(name, "group_norm")) return group_norm(&job);
  if (!strcmp(name, "layer_norm")) return layer_norm(&job, is_even);
  if (!strcmp(name, "geglu")) return geglu(&job, is_even);
  if (!strcmp(name, "attention")) return attention(&job);
  return INVALID_VALUE;
}

/* What the runtime above takes for a graph that it captures on that stream happens when the graph is launched. */
static int (*take)(void *stream, void (*perform)(void *), void *job);
void fake_set_taker(int (*taker)(void *, void (*)(void *), void *)) { take = taker; }

enum { MOST_PARAMETERS = 68 };
typedef struct { const Module *function; unsigned gx, gy; uint64_t values[MOST_PARAMETERS]; } Launch;
static void perform(void *job) {
  Launch *launch = job;
  void *parameters[MOST_PARAMETERS];
  for (int i = 0; i < MOST_PARAMETERS; ++i) parameters[i] = &launch->values[i];
  compute(launch->function, launch->gx, launch->gy, parameters);
}

int cuLaunchKernel(Module *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                   void *stream, void **parameters, void **extra) {
  CALL(1, "%s %u,%u,%u %u,%u,%u %u", function->text, gx, gy, gz, bx, by, bz, shared)
  HERE(stream)
  HERE(function)
  if (extra) return INVALID_VALUE;
  struct { const char *name; int count; } sizes[] = {{"combine", 66}, {"langevin_step", 12}, {"rescale", 8}, {"threshold", 6}, {"clamp", 5}, {"blend", 8},
                                                  {"group_norm", 12}, {"layer_norm", 6}, {"geglu", 3}, {"attention", 19}};
  for (int i = 0; i < 10; ++i) {
    int count = sizes[i].count;
    if (strcmp(function->function, sizes[i].name)) continue;
    if (P(uint64_t, count) || P(uint64_t, count + 1)) return INVALID_VALUE; /* the two scratch pointers of Triton's convention */
    if (!take) break;
    Launch *launch = calloc(1, sizeof *launch);
    *launch = (Launch){function, gx, gy, {0}};
    for (int k = 0; k < count; ++k) launch->values[k] = P(uint64_t, k);
    if (take(stream, perform, launch)) return OK;
    free(launch);
  }
  return compute(function, gx, gy, parameters);
}
