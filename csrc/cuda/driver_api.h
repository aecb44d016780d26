// The subset of the CUDA driver API that the core calls, declared from its documented signatures: libcuda is
// opened at run time, so neither a toolkit nor a link to it is needed. Names are those the library exports; a
// plain name would give the oldest version of a function.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/error.h"

namespace textopia::cuda::api {

using Result = int;
using DeviceId = int;
using Pointer = uint64_t;  // device memory

struct Context;
struct Event;
struct Function;
struct Module;
struct Stream;

enum ResultCode : Result {
  kSuccess = 0,
  kOutOfMemory = 2,
  kNotInitialized = 3,
  kDeinitialized = 4,
  kStubLibrary = 34,
  kRequiresNewerDriver = 36,
  kDeviceUnavailable = 46,
  kNoDevice = 100,
  kInvalidDevice = 101,
  kInvalidImage = 200,
  kNoBinaryForGpu = 209,
  kEccUncorrectable = 214,
  kNvlinkUncorrectable = 220,
  kInvalidPtx = 218,
  kUnsupportedPtxVersion = 222,
  kIllegalAddress = 700,
  kLaunchTimeout = 702,
  kContextIsDestroyed = 709,
  kAssert = 710,
  kHardwareStackError = 714,
  kIllegalInstruction = 715,
  kMisalignedAddress = 716,
  kInvalidAddressSpace = 717,
  kInvalidPc = 718,
  kLaunchFailed = 719,
  kSystemDriverMismatch = 803,
  kExternalDevice = 999,
};

inline constexpr int kMultiprocessorCount = 16;  // CUdevice_attribute
inline constexpr int kComputeCapabilityMajor = 75;
inline constexpr int kComputeCapabilityMinor = 76;
inline constexpr int kMaxDynamicSharedBytes = 8;  // CUfunction_attribute
inline constexpr unsigned kNonBlocking = 1;       // CUstream_flags: does not wait for the legacy stream
inline constexpr unsigned kDisableTiming = 2;     // CUevent_flags

// X(name, (arguments)); every function returns a Result.
#define TEXTOPIA_CUDA_FUNCTIONS(X)                                                                     \
  X(cuInit, (unsigned flags))                                                                          \
  X(cuDriverGetVersion, (int*))                                                                        \
  X(cuGetErrorName, (Result, const char**))                                                            \
  X(cuGetErrorString, (Result, const char**))                                                          \
  X(cuDeviceGetCount, (int*))                                                                          \
  X(cuDeviceGet, (DeviceId*, int ordinal))                                                             \
  X(cuDeviceGetName, (char*, int bytes, DeviceId))                                                     \
  X(cuDeviceGetAttribute, (int*, int attribute, DeviceId))                                             \
  X(cuDeviceTotalMem_v2, (size_t*, DeviceId))                                                          \
  X(cuDevicePrimaryCtxRetain, (Context**, DeviceId))                                                   \
  X(cuDevicePrimaryCtxRelease_v2, (DeviceId))                                                          \
  X(cuCtxPushCurrent_v2, (Context*))                                                                   \
  X(cuCtxPopCurrent_v2, (Context**))                                                                   \
  X(cuModuleLoadData, (Module**, const void* image))                                                   \
  X(cuModuleUnload, (Module*))                                                                         \
  X(cuModuleGetFunction, (Function**, Module*, const char* name))                                      \
  X(cuFuncSetAttribute, (Function*, int attribute, int value))                                         \
  X(cuLaunchKernel,                                                                                    \
    (Function*, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, \
     unsigned block_z, unsigned shared_bytes, Stream*, void** parameters, void** extra))               \
  X(cuStreamCreate, (Stream**, unsigned flags))                                                        \
  X(cuStreamDestroy_v2, (Stream*))                                                                     \
  X(cuStreamSynchronize, (Stream*))                                                                    \
  X(cuEventCreate, (Event**, unsigned flags))                                                          \
  X(cuEventDestroy_v2, (Event*))                                                                       \
  X(cuEventRecord, (Event*, Stream*))                                                                  \
  X(cuEventSynchronize, (Event*))                                                                      \
  X(cuEventElapsedTime, (float* milliseconds, Event* start, Event* end))                               \
  X(cuMemAlloc_v2, (Pointer*, size_t bytes))                                                           \
  X(cuMemFree_v2, (Pointer))                                                                           \
  X(cuMemAllocHost_v2, (void**, size_t bytes))                                                         \
  X(cuMemFreeHost, (void*))                                                                            \
  X(cuMemGetInfo_v2, (size_t* free, size_t* total))                                                    \
  X(cuMemcpyHtoDAsync_v2, (Pointer, const void*, size_t bytes, Stream*))                               \
  X(cuMemcpyDtoHAsync_v2, (void*, Pointer, size_t bytes, Stream*))                                     \
  X(cuMemcpyDtoDAsync_v2, (Pointer, Pointer, size_t bytes, Stream*))

// One function of the library, with its name for messages.
template <typename... Args>
class Call {
 public:
  explicit constexpr Call(const char* name) : name_(name) {}
  void bind(void* address) { pointer_ = reinterpret_cast<Result (*)(Args...)>(address); }
  const char* name() const { return name_; }
  Result operator()(Args... args) const { return pointer_(args...); }

 private:
  Result (*pointer_)(Args...) = nullptr;
  const char* name_;
};

namespace detail {
template <typename Signature>
struct CallOf;
template <typename... Args>
struct CallOf<Result(Args...)> {
  using Type = Call<Args...>;
};
}  // namespace detail

struct Table {
#define TEXTOPIA_CUDA_FIELD(name, args) detail::CallOf<Result args>::Type name{#name};
  TEXTOPIA_CUDA_FUNCTIONS(TEXTOPIA_CUDA_FIELD)
#undef TEXTOPIA_CUDA_FIELD
};

}  // namespace textopia::cuda::api
