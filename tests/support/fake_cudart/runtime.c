/* A CUDA runtime without a GPU, on top of the fake driver (fake_cuda.c), whose device memory is the host's: what
 * ONNX Runtime's CUDA provider needs to place a graph, copy, capture and launch. Copies and fills happen; kernels
 * of the provider are recorded by name and do nothing. The driver's log, its failures to order and its memory are
 * shared. Signatures and numbers: CUDA 13's public headers. Functions without a body here answer 0 (build.py). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, ILLEGAL_ADDRESS = 700,
       NOT_CAPTURING = 401, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901 };
enum { HOST_TO_DEVICE = 1, DEVICE_TO_HOST = 2, DEVICE_TO_DEVICE = 3 };
enum { MAX_STREAMS = 256 };
typedef struct { unsigned x, y, z; } Dim3;
typedef struct { Dim3 grid, block; size_t shared; void *stream; } Launch;

/* ---- the driver below ---- */
int fake_record(const char *name, const char *detail);
int fake_is_memory(uint64_t at, size_t bytes);
void fake_set_current(int device);
void fake_set_taker(int (*taker)(void *stream, void (*perform)(void *), void *job));
int cuDeviceGetCount(int *);
int cuDeviceGetAttribute(int *, int, int);
int cuCtxPushCurrent_v2(void *);
int cuCtxPopCurrent_v2(void **);
int cuMemAlloc_v2(uint64_t *, size_t);
int cuMemFree_v2(uint64_t);
int cuMemAllocHost_v2(void **, size_t);
int cuMemFreeHost(void *);
int cuMemGetInfo_v2(size_t *, size_t *);
int cuStreamCreate(void **, unsigned);
int cuStreamDestroy_v2(void *);
int cuEventCreate(void **, unsigned);
int cuEventDestroy_v2(void *);

static _Thread_local int last_error, current_device;
static int fail(int result) { return result ? (last_error = result) : OK; }

#define CALL(...) \
  char detail[192] = ""; \
  snprintf(detail, sizeof detail, "" __VA_ARGS__); \
  int result = fake_record(__func__, detail); \
  if (result != OK) return fail(result);

/* The runtime makes the primary context current by itself. */
#define IN_CONTEXT(call) \
  void *context = (void *)(uint64_t)(0xC0 + current_device); \
  if ((result = cuCtxPushCurrent_v2(context))) return fail(result); \
  result = call; \
  cuCtxPopCurrent_v2(&context);

/* What a library of the toolkit that has no body answers. */
int fake_stub(const char *name) { return fail(fake_record(name, "")); }

#include "capture.h"

/* ---- errors, versions, devices ---- */
static size_t largest = SIZE_MAX;
/* cudaMalloc of more bytes than that finds no memory. */
void fake_largest(size_t bytes) { largest = bytes; }
void fake_runtime_reset(void) { last_error = OK; largest = SIZE_MAX; memset(captures, 0, sizeof captures); fake_set_taker(take); }
static const struct { int error; const char *name, *text; } errors[] = {
    {OK, "cudaSuccess", "no error"},
    {INVALID_VALUE, "cudaErrorInvalidValue", "invalid argument"},
    {OUT_OF_MEMORY, "cudaErrorMemoryAllocation", "out of memory"},
    {98, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {INVALID_DEVICE, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {ILLEGAL_ADDRESS, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {719, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {CAPTURE_UNSUPPORTED, "cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"},
    {CAPTURE_INVALIDATED, "cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"},
    {-1, "cudaErrorUnknown", "unknown error"}};
static int find_error(int error) {
  int i = 0;
  while (errors[i].error != error && errors[i].error >= 0) ++i;
  return i;
}
const char *cudaGetErrorName(int error) { return errors[find_error(error)].name; }
const char *cudaGetErrorString(int error) { return errors[find_error(error)].text; }
int cudaGetLastError(void) { int error = last_error; last_error = OK; return error; }
int cudaPeekAtLastError(void) { return last_error; }
int cudaDriverGetVersion(int *version) { *version = 13000; return OK; }
int cudaRuntimeGetVersion(int *version) { *version = 13000; return OK; }
int cudaGetDeviceCount(int *count) { CALL() return fail(cuDeviceGetCount(count)); }
int cudaGetDevice(int *device) { *device = current_device; return OK; }
int cudaSetDevice(int device) {
  CALL("%d", device)
  int count = 0;
  cuDeviceGetCount(&count);
  if (device < 0 || device >= count) return fail(INVALID_DEVICE);
  fake_set_current(current_device = device);
  return OK;
}
/* Names come without the version that the driver exports them with. */
int cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, uint64_t flags, int *found) {
  (void)version; (void)flags;
  CALL("%s", name)
  *function = dlsym(RTLD_DEFAULT, name);
  if (found) *found = *function ? 0 : 1;
  return OK;
}
static int attribute_of(int attribute) {
  int value = 0;
  switch (attribute) {
    case 1: case 2: return 1024;                  /* threads per block, along x */
    case 5: case 6: case 7: return 65535;         /* blocks along x, y, z */
    case 8: return 49152;                         /* shared bytes per block */
    case 97: case 81: return 232448;              /* at most, and per multiprocessor */
    case 10: return 32;                           /* threads of a warp */
    case 39: return 2048;                         /* threads per multiprocessor */
    case 115: return 1;                           /* memory pools */
    default: cuDeviceGetAttribute(&value, attribute, 40 + current_device); return value;
  }
}
int cudaDeviceGetAttribute(int *value, int attribute, int device) { (void)device; *value = attribute_of(attribute); return OK; }
/* cudaDeviceProp of CUDA 13: 1008 bytes, of which the provider reads these. */
static void put(char *at, int value) { memcpy(at, &value, sizeof value); }
static void put_size(char *at, size_t value) { memcpy(at, &value, sizeof value); }
int cudaGetDeviceProperties(char *properties, int device) {
  CALL("%d", device)
  memset(properties, 0, 1008);
  snprintf(properties, 256, "Fake %d", device);
  put_size(properties + 288, (size_t)1 << 34); /* memory */
  put_size(properties + 296, 49152);           /* shared bytes per block */
  put(properties + 304, 65536);                /* registers per block */
  put(properties + 308, 32);                   /* threads of a warp */
  put(properties + 320, 1024);                 /* threads per block */
  for (int i = 0; i < 3; ++i) {
    put(properties + 324 + 4 * i, i < 2 ? 1024 : 64);
    put(properties + 336 + 4 * i, i < 1 ? 0x7FFFFFFF : 65535);
  }
  put(properties + 360, attribute_of(75));
  put(properties + 364, attribute_of(76));
  put(properties + 384, attribute_of(16)); /* multiprocessors */
  put(properties + 596, 50 << 20);         /* second-level cache */
  put(properties + 604, 2048);             /* threads per multiprocessor */
  put_size(properties + 624, 233472);      /* shared bytes per multiprocessor */
  put(properties + 632, 65536);
  put_size(properties + 672, 232448); /* shared bytes per block, at most */
  put(properties + 720, 1);           /* memory pools */
  return OK;
}

/* ---- memory ---- */
int cudaMalloc(void **memory, size_t bytes) {
  CALL("%zu", bytes)
  if (is_unsafe_now()) return fail(CAPTURE_UNSUPPORTED);
  if (bytes > largest) return fail(OUT_OF_MEMORY);
  uint64_t made = 0;
  IN_CONTEXT(cuMemAlloc_v2(&made, bytes))
  *memory = (void *)made;
  return fail(result);
}
int cudaFree(void *memory) {
  CALL()
  if (!memory) return OK;
  if (is_unsafe_now()) return fail(CAPTURE_UNSUPPORTED);
  IN_CONTEXT(cuMemFree_v2((uint64_t)memory))
  return fail(result);
}
int cudaMallocFromPoolAsync(void **memory, size_t bytes, void *pool, void *stream) { (void)pool; (void)stream; return cudaMalloc(memory, bytes); }
int cudaFreeAsync(void *memory, void *stream) { (void)stream; return cudaFree(memory); }
int cudaMallocHost(void **memory, size_t bytes) {
  CALL("%zu", bytes)
  if (is_unsafe_now()) return fail(CAPTURE_UNSUPPORTED);
  IN_CONTEXT(cuMemAllocHost_v2(memory, bytes))
  return fail(result);
}
int cudaHostAlloc(void **memory, size_t bytes, unsigned flags) { (void)flags; return cudaMallocHost(memory, bytes); }
int cudaFreeHost(void *memory) {
  CALL()
  if (is_unsafe_now()) return fail(CAPTURE_UNSUPPORTED);
  IN_CONTEXT(cuMemFreeHost(memory))
  return fail(result);
}
int cudaMemGetInfo(size_t *unused, size_t *total) {
  CALL()
  IN_CONTEXT(cuMemGetInfo_v2(unused, total))
  return fail(result);
}
/* {type, device, device pointer, host pointer}; type 2: the device's, 0: not registered */
int cudaPointerGetAttributes(uint64_t *attributes, const void *memory) {
  CALL()
  int is_device = fake_is_memory((uint64_t)memory, 1);
  memset(attributes, 0, 88);
  put((char *)attributes, is_device ? 2 : 0);
  attributes[1] = is_device ? (uint64_t)memory : 0;
  return OK;
}
static int copy(void *to, const void *from, size_t bytes, int kind, void *stream) {
  if ((kind == HOST_TO_DEVICE || kind == DEVICE_TO_DEVICE) && !fake_is_memory((uint64_t)to, bytes)) return fail(INVALID_VALUE);
  if ((kind == DEVICE_TO_HOST || kind == DEVICE_TO_DEVICE) && !fake_is_memory((uint64_t)from, bytes)) return fail(INVALID_VALUE);
  if (bytes) enqueue(stream, (Work){.to = to, .from = from, .bytes = bytes});
  return OK;
}
int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream) {
  CALL("%zu %d %p", bytes, kind, stream)
  return copy(to, from, bytes, kind, stream);
}
int cudaMemcpy(void *to, const void *from, size_t bytes, int kind) {
  CALL("%zu %d", bytes, kind)
  if (is_unsafe_now()) return fail(CAPTURE_UNSUPPORTED);
  return copy(to, from, bytes, kind, NULL);
}
int cudaMemcpy2DAsync(char *to, size_t to_pitch, const char *from, size_t from_pitch, size_t width, size_t height, int kind, void *stream) {
  CALL("%zu %d %p", width * height, kind, stream)
  for (size_t row = 0; row < height; ++row)
    if ((result = copy(to + row * to_pitch, from + row * from_pitch, width, kind, stream))) return result;
  return OK;
}
int cudaMemsetAsync(void *to, int value, size_t bytes, void *stream) {
  CALL("%zu %p", bytes, stream)
  if (!fake_is_memory((uint64_t)to, bytes)) return fail(INVALID_VALUE);
  if (bytes) enqueue(stream, (Work){.to = to, .bytes = bytes, .value = value});
  return OK;
}
int cudaMemset(void *to, int value, size_t bytes) {
  if (is_unsafe_now()) return fail(CAPTURE_UNSUPPORTED);
  return cudaMemsetAsync(to, value, bytes, NULL);
}
int cudaMemPoolCreate(void **pool, const void *properties) { (void)properties; CALL() *pool = (void *)0xB0; return OK; }
int cudaMemPoolGetAttribute(void *pool, int attribute, void *value) { (void)pool; CALL("%d", attribute) memset(value, 0, 8); return OK; }

/* ---- streams and events ---- */
int cudaStreamCreateWithFlags(void **stream, unsigned flags) {
  CALL("%u", flags)
  IN_CONTEXT(cuStreamCreate(stream, flags))
  return fail(result);
}
int cudaStreamCreate(void **stream) { return cudaStreamCreateWithFlags(stream, 0); }
int cudaStreamDestroy(void *stream) {
  CALL("%p", stream)
  IN_CONTEXT(cuStreamDestroy_v2(stream))
  return fail(result);
}
int cudaStreamSynchronize(void *stream) {
  CALL("%p", stream)
  int capture = capture_of(stream);
  if (capture >= 0) captures[capture].is_invalid = 1;
  return capture >= 0 ? fail(CAPTURE_UNSUPPORTED) : OK;
}
int cudaDeviceSynchronize(void) {
  CALL()
  return is_unsafe_now() ? fail(CAPTURE_UNSUPPORTED) : OK;
}
int cudaEventCreateWithFlags(void **event, unsigned flags) {
  CALL("%u", flags)
  IN_CONTEXT(cuEventCreate(event, flags))
  return fail(result);
}
int cudaEventCreate(void **event) { return cudaEventCreateWithFlags(event, 0); }
int cudaEventDestroy(void *event) {
  CALL()
  IN_CONTEXT(cuEventDestroy_v2(event))
  return fail(result);
}
int cudaEventElapsedTime(float *milliseconds, void *start, void *end) { (void)start; (void)end; CALL() *milliseconds = 1.0f; return OK; }
int cudaLaunchHostFunc(void *stream, void (*function)(void *), void *data) {
  CALL("%p", stream)
  enqueue(stream, (Work){.function = function, .job = data});
  return OK;
}

/* ---- kernels: a host address stands for each, registered with its name when the provider is loaded ---- */
static struct { const void *at; const char *name; } *kernels;
static size_t kernel_count, kernel_room;

static size_t place_of(const void *at) {
  size_t place = ((uint64_t)at >> 4) * 0x9E3779B97F4A7C15u & (kernel_room - 1);
  while (kernels[place].at && kernels[place].at != at) place = (place + 1) & (kernel_room - 1);
  return place;
}
static void add_kernel(const void *at, const char *name) {
  if (2 * kernel_count >= kernel_room) {
    size_t old_room = kernel_room;
    void *old_kernels = kernels;
    kernel_room = old_room ? 2 * old_room : 1024;
    kernels = calloc(kernel_room, sizeof *kernels);
    for (size_t i = 0; i < old_room; ++i) {
      const void **old = (const void **)old_kernels + 2 * i;
      if (old[0]) { size_t place = place_of(old[0]); kernels[place].at = old[0]; kernels[place].name = old[1]; }
    }
    free(old_kernels);
  }
  size_t place = place_of(at);
  kernel_count += !kernels[place].at;
  kernels[place].at = at;
  kernels[place].name = name;
}
static const char *name_of(const void *at) {
  const char *name = kernel_room ? kernels[place_of(at)].name : NULL;
  return name ? name : "unregistered";
}
void **__cudaRegisterFatBinary(void *image) { (void)image; static void *handle[1]; return handle; }
void __cudaRegisterFatBinaryEnd(void **handle) { (void)handle; }
void __cudaUnregisterFatBinary(void **handle) { (void)handle; }
void __cudaRegisterVar(void) {}
void __cudaRegisterFunction(void **handle, const void *at, char *device_name, const char *name) {
  (void)handle; (void)device_name;
  add_kernel(at, name);
}
static _Thread_local Launch pushed;
unsigned __cudaPushCallConfiguration(Dim3 grid, Dim3 block, size_t shared, void *stream) {
  pushed = (Launch){grid, block, shared, stream};
  return 0;
}
int __cudaPopCallConfiguration(Dim3 *grid, Dim3 *block, size_t *shared, void **stream) {
  *grid = pushed.grid; *block = pushed.block; *shared = pushed.shared; *stream = pushed.stream;
  return OK;
}
int __cudaGetKernel(const void **kernel, const void *at) { *kernel = at; return OK; }

int cudaLaunchKernel(const void *at, Dim3 grid, Dim3 block, void **arguments, size_t shared, void *stream) {
  (void)arguments; (void)shared;
  CALL("%p %u,%u,%u %u,%u,%u %.110s", stream, grid.x, grid.y, grid.z, block.x, block.y, block.z, name_of(at))
  fake_enqueue(stream);
  return OK;
}
int __cudaLaunchKernel(const void *at, Dim3 grid, Dim3 block, void **arguments, size_t shared, void *stream) {
  return cudaLaunchKernel(at, grid, block, arguments, shared, stream);
}
int cudaLaunchCooperativeKernel(const void *at, Dim3 grid, Dim3 block, void **arguments, size_t shared, void *stream) {
  return cudaLaunchKernel(at, grid, block, arguments, shared, stream);
}
int cudaLaunchKernelExC(const Launch *launch, const void *at, void **arguments) {
  return cudaLaunchKernel(at, launch->grid, launch->block, arguments, launch->shared, launch->stream);
}
/* cudaFuncAttributes: 144 bytes; at 24 the threads per block, at 28 the registers */
int cudaFuncGetAttributes(char *attributes, const void *at) {
  (void)at;
  CALL()
  memset(attributes, 0, 144);
  put(attributes + 24, 1024);
  put(attributes + 28, 32);
  return OK;
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks) { *blocks = 2; return OK; }
