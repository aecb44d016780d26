// The subset of ONNX Runtime's C ABI that the core calls, declared from its published slot numbers: the
// library is opened at run time, so neither its headers nor a link to it are needed. The function table is
// append-only; a slot keeps its number and signature for ever.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/error.h"

namespace textopia::ort::abi {

struct Allocator;
struct CudaProviderOptions;
struct CustomOp;
struct CustomOpDomain;
struct Env;
struct EpAssignedNode;
struct EpAssignedSubgraph;
struct EpDevice;
struct IoBinding;
struct KernelContext;
struct KernelInfo;
struct KeyValuePairs;
struct MemoryInfo;
struct RunOptions;
struct Session;
struct SessionOptions;
struct ShapeInfo;
struct Status;
struct TypeInfo;
struct Value;

// What OrtGetApiBase returns.
struct ApiBase {
  const void* (*get_api)(uint32_t version);
  const char* (*get_version_string)();
};

using LogFunction = void (*)(void* param, int severity, const char* category, const char* log_id,
                             const char* location, const char* message);

enum ErrorCode : int {
  kFail = 1,
  kInvalidArgument = 2,
  kNoSuchFile = 3,
  kNoModel = 4,
  kInvalidProtobuf = 7,
  kNotImplemented = 9,
  kInvalidGraph = 10,
};

inline constexpr int kLogError = 3;
inline constexpr int kLogFatal = 4;
inline constexpr int kSequential = 0;       // ExecutionMode
inline constexpr int kDeviceAllocator = 0;  // OrtAllocatorType
inline constexpr int kArenaAllocator = 1;
inline constexpr int kMemoryDefault = 0;  // OrtMemType
inline constexpr int kCpuDevice = 0;      // OrtMemoryInfoDeviceType
inline constexpr int kAnyType = 0;        // ONNXTensorElementDataType of an argument that may have several
inline constexpr int kRequired = 0;       // OrtCustomOpInputOutputCharacteristic
inline constexpr int kOptional = 1;

// An operator of ours as ORT sees it: a table of functions that get their own table as the first argument.
struct CustomOp {
  uint32_t version;
  void* (*CreateKernel)(const CustomOp*, const void* api, const KernelInfo*);
  const char* (*GetName)(const CustomOp*);
  const char* (*GetExecutionProviderType)(const CustomOp*);
  int (*GetInputType)(const CustomOp*, size_t index);
  size_t (*GetInputTypeCount)(const CustomOp*);
  int (*GetOutputType)(const CustomOp*, size_t index);
  size_t (*GetOutputTypeCount)(const CustomOp*);
  void (*KernelCompute)(void* kernel, KernelContext*);
  void (*KernelDestroy)(void* kernel);
  int (*GetInputCharacteristic)(const CustomOp*, size_t index);
  int (*GetOutputCharacteristic)(const CustomOp*, size_t index);
  int (*GetInputMemoryType)(const CustomOp*, size_t index);
  int (*GetVariadicInputMinArity)(const CustomOp*);
  int (*GetVariadicInputHomogeneity)(const CustomOp*);
  int (*GetVariadicOutputMinArity)(const CustomOp*);
  int (*GetVariadicOutputHomogeneity)(const CustomOp*);
  Status* (*CreateKernelV2)(const CustomOp*, const void* api, const KernelInfo*, void** kernel);
  Status* (*KernelComputeV2)(void* kernel, KernelContext*);
  Status* (*InferOutputShapeFn)(const CustomOp*, void* context);
  int (*GetStartVersion)(const CustomOp*);
  int (*GetEndVersion)(const CustomOp*);
  size_t (*GetMayInplace)(int** inputs, int** outputs);
  void (*ReleaseMayInplace)(int* inputs, int* outputs);
  size_t (*GetAliasMap)(int** inputs, int** outputs);
  void (*ReleaseAliasMap)(int* inputs, int* outputs);
};
static_assert(sizeof(CustomOp) == 26 * sizeof(void*));

// The newest API version whose table was checked; newer libraries are asked for this one.
inline constexpr uint32_t kKnownVersion = 29;
inline constexpr int kKnownSlots = 425;

// X(slot, first API version that has it, name, return type, (arguments))
#define TEXTOPIA_ORT_SLOTS(X)                                                                               \
  X(0, 1, CreateStatus, Status*, (int code, const char* message))                                           \
  X(1, 1, GetErrorCode, int, (const Status*))                                                               \
  X(2, 1, GetErrorMessage, const char*, (const Status*))                                                    \
  X(4, 1, CreateEnvWithCustomLogger, Status*, (LogFunction, void* param, int severity, const char*, Env**)) \
  X(7, 1, CreateSession, Status*, (const Env*, const char* path, const SessionOptions*, Session**))         \
  X(8, 1, CreateSessionFromArray, Status*,                                                                  \
    (const Env*, const void* data, size_t bytes, const SessionOptions*, Session**))                         \
  X(10, 1, CreateSessionOptions, Status*, (SessionOptions**))                                               \
  X(13, 1, SetSessionExecutionMode, Status*, (SessionOptions*, int mode))                                   \
  X(17, 1, DisableMemPattern, Status*, (SessionOptions*))                                                   \
  X(22, 1, SetSessionLogSeverityLevel, Status*, (SessionOptions*, int severity))                            \
  X(23, 1, SetSessionGraphOptimizationLevel, Status*, (SessionOptions*, int level))                         \
  X(24, 1, SetIntraOpNumThreads, Status*, (SessionOptions*, int count))                                     \
  X(25, 1, SetInterOpNumThreads, Status*, (SessionOptions*, int count))                                     \
  X(26, 1, CreateCustomOpDomain, Status*, (const char* name, CustomOpDomain**))                             \
  X(27, 1, CustomOpDomain_Add, Status*, (CustomOpDomain*, const CustomOp*))                                 \
  X(28, 1, AddCustomOpDomain, Status*, (SessionOptions*, CustomOpDomain*))                                  \
  X(30, 1, SessionGetInputCount, Status*, (const Session*, size_t*))                                        \
  X(31, 1, SessionGetOutputCount, Status*, (const Session*, size_t*))                                       \
  X(33, 1, SessionGetInputTypeInfo, Status*, (const Session*, size_t index, TypeInfo**))                    \
  X(34, 1, SessionGetOutputTypeInfo, Status*, (const Session*, size_t index, TypeInfo**))                   \
  X(36, 1, SessionGetInputName, Status*, (const Session*, size_t index, Allocator*, char**))                \
  X(37, 1, SessionGetOutputName, Status*, (const Session*, size_t index, Allocator*, char**))               \
  X(39, 1, CreateRunOptions, Status*, (RunOptions**))                                                       \
  X(46, 1, RunOptionsSetTerminate, Status*, (RunOptions*))                                                  \
  X(47, 1, RunOptionsUnsetTerminate, Status*, (RunOptions*))                                                \
  X(49, 1, CreateTensorWithDataAsOrtValue, Status*,                                                         \
    (const MemoryInfo*, void* data, size_t bytes, const int64_t* shape, size_t rank, int type, Value**))    \
  X(51, 1, GetTensorMutableData, Status*, (Value*, void**))                                                 \
  X(55, 1, CastTypeInfoToTensorInfo, Status*, (const TypeInfo*, const ShapeInfo**))                         \
  X(60, 1, GetTensorElementType, Status*, (const ShapeInfo*, int*))                                         \
  X(61, 1, GetDimensionsCount, Status*, (const ShapeInfo*, size_t*))                                        \
  X(62, 1, GetDimensions, Status*, (const ShapeInfo*, int64_t* sizes, size_t rank))                         \
  X(63, 1, GetSymbolicDimensions, Status*, (const ShapeInfo*, const char** names, size_t rank))             \
  X(65, 1, GetTensorTypeAndShape, Status*, (const Value*, ShapeInfo**))                                     \
  X(68, 1, CreateMemoryInfo, Status*,                                                                       \
    (const char* name, int allocator_type, int device, int memory_type, MemoryInfo**))                      \
  X(69, 1, CreateCpuMemoryInfo, Status*, (int allocator_type, int memory_type, MemoryInfo**))               \
  X(75, 1, AllocatorAlloc, Status*, (Allocator*, size_t bytes, void**))                                     \
  X(76, 1, AllocatorFree, Status*, (Allocator*, void*))                                                     \
  X(78, 1, GetAllocatorWithDefaultOptions, Status*, (Allocator**))                                          \
  X(85, 1, KernelInfoGetAttribute_float, Status*, (const KernelInfo*, const char* name, float*))            \
  X(86, 1, KernelInfoGetAttribute_int64, Status*, (const KernelInfo*, const char* name, int64_t*))          \
  X(87, 1, KernelInfoGetAttribute_string, Status*,                                                          \
    (const KernelInfo*, const char* name, char*, size_t* size))                                             \
  X(88, 1, KernelContext_GetInputCount, Status*, (const KernelContext*, size_t*))                           \
  X(90, 1, KernelContext_GetInput, Status*, (const KernelContext*, size_t index, const Value**))            \
  X(91, 1, KernelContext_GetOutput, Status*,                                                                \
    (KernelContext*, size_t index, const int64_t* sizes, size_t rank, Value**))                             \
  X(93, 1, ReleaseStatus, void, (Status*))                                                                  \
  X(94, 1, ReleaseMemoryInfo, void, (MemoryInfo*))                                                          \
  X(95, 1, ReleaseSession, void, (Session*))                                                                \
  X(96, 1, ReleaseValue, void, (Value*))                                                                    \
  X(97, 1, ReleaseRunOptions, void, (RunOptions*))                                                          \
  X(98, 1, ReleaseTypeInfo, void, (TypeInfo*))                                                              \
  X(99, 1, ReleaseTensorTypeAndShapeInfo, void, (ShapeInfo*))                                               \
  X(100, 1, ReleaseSessionOptions, void, (SessionOptions*))                                                 \
  X(101, 1, ReleaseCustomOpDomain, void, (CustomOpDomain*))                                                 \
  X(125, 4, GetAvailableProviders, Status*, (char*** names, int* count))                                    \
  X(126, 4, ReleaseAvailableProviders, Status*, (char** names, int count))                                  \
  X(130, 5, AddSessionConfigEntry, Status*, (SessionOptions*, const char* key, const char* value))          \
  X(132, 5, ReleaseAllocator, void, (Allocator*))                                                           \
  X(133, 5, RunWithBinding, Status*, (Session*, const RunOptions*, const IoBinding*))                       \
  X(134, 5, CreateIoBinding, Status*, (Session*, IoBinding**))                                              \
  X(135, 5, ReleaseIoBinding, void, (IoBinding*))                                                           \
  X(136, 5, BindInput, Status*, (IoBinding*, const char* name, const Value*))                               \
  X(137, 5, BindOutput, Status*, (IoBinding*, const char* name, const Value*))                              \
  X(138, 5, BindOutputToDevice, Status*, (IoBinding*, const char* name, const MemoryInfo*))                 \
  X(140, 5, GetBoundOutputValues, Status*, (const IoBinding*, Allocator*, Value***, size_t* count))         \
  X(165, 8, AddRunConfigEntry, Status*, (RunOptions*, const char* key, const char* value))                  \
  X(193, 10, KernelContext_GetGPUComputeStream, Status*, (const KernelContext*, void** stream))             \
  X(204, 11, SessionOptionsAppendExecutionProvider_CUDA_V2, Status*,                                        \
    (SessionOptions*, const CudaProviderOptions*))                                                          \
  X(205, 11, CreateCUDAProviderOptions, Status*, (CudaProviderOptions**))                                   \
  X(206, 11, UpdateCUDAProviderOptions, Status*,                                                            \
    (CudaProviderOptions*, const char* const* keys, const char* const* values, size_t count))               \
  X(208, 11, ReleaseCUDAProviderOptions, void, (CudaProviderOptions*))                                      \
  X(225, 14, MemoryInfoGetDeviceType, void, (const MemoryInfo*, int*))                                      \
  X(230, 14, KernelInfo_GetInputCount, Status*, (const KernelInfo*, size_t*))                               \
  X(232, 14, KernelInfo_GetInputName, Status*, (const KernelInfo*, size_t index, char*, size_t* size))      \
  X(234, 14, KernelInfo_GetInputTypeInfo, Status*, (const KernelInfo*, size_t index, TypeInfo**))           \
  X(244, 15, KernelInfo_GetNodeName, Status*, (const KernelInfo*, char*, size_t* size))                     \
  X(249, 15, KernelInfoGetConstantInput_tensor, Status*,                                                    \
    (const KernelInfo*, size_t index, int* is_constant, const Value**))                                     \
  X(263, 16, UpdateCUDAProviderOptionsWithValue, Status*, (CudaProviderOptions*, const char* key, void*))   \
  X(274, 17, KernelContext_ParallelFor, Status*,                                                            \
    (const KernelContext*, void (*body)(void*, size_t), size_t count, size_t batches, void* data))          \
  X(278, 18, KernelInfoGetAllocator, Status*, (const KernelInfo*, int memory_type, Allocator**))            \
  X(297, 22, GetKeyValue, const char*, (const KeyValuePairs*, const char* key))                             \
  X(301, 22, RegisterExecutionProviderLibrary, Status*, (Env*, const char* name, const char* path))         \
  X(303, 22, GetEpDevices, Status*, (const Env*, const EpDevice* const** devices, size_t* count))           \
  X(304, 22, SessionOptionsAppendExecutionProvider_V2, Status*,                                             \
    (SessionOptions*, Env*, const EpDevice* const* devices, size_t count, const char* const* keys,          \
     const char* const* values, size_t options))                                                            \
  X(312, 22, EpDevice_EpName, const char*, (const EpDevice*))                                               \
  X(314, 22, EpDevice_EpMetadata, const KeyValuePairs*, (const EpDevice*))                                  \
  X(380, 23, SessionGetMemoryInfoForInputs, Status*,                                                        \
    (const Session*, const MemoryInfo** infos, size_t count))                                               \
  X(407, 24, Session_GetEpGraphAssignmentInfo, Status*,                                                     \
    (const Session*, const EpAssignedSubgraph* const** subgraphs, size_t* count))                           \
  X(408, 24, EpAssignedSubgraph_GetEpName, Status*, (const EpAssignedSubgraph*, const char** name))         \
  X(409, 24, EpAssignedSubgraph_GetNodes, Status*,                                                          \
    (const EpAssignedSubgraph*, const EpAssignedNode* const** nodes, size_t* count))                        \
  X(410, 24, EpAssignedNode_GetName, Status*, (const EpAssignedNode*, const char** name))                   \
  X(411, 24, EpAssignedNode_GetDomain, Status*, (const EpAssignedNode*, const char** domain))               \
  X(412, 24, EpAssignedNode_GetOperatorType, Status*, (const EpAssignedNode*, const char** op))             \
  X(421, 27, SessionReleaseCapturedGraph, Status*, (Session*, int graph_id))

// One slot of the table. Calling one that the opened library does not have throws instead of jumping nowhere.
template <typename Signature>
class Function;

template <typename Result, typename... Args>
class Function<Result(Args...)> {
 public:
  constexpr Function(const char* name, uint32_t since) : name_(name), since_(since) {}

  void bind(void* address) { pointer_ = reinterpret_cast<Result (*)(Args...)>(address); }
  bool is_bound() const { return pointer_ != nullptr; }

  Result operator()(Args... args) const {
    check(pointer_ != nullptr, code::kConfiguration, "ONNX Runtime: the opened library has no ", name_,
          ", which came with version 1.", since_);
    return pointer_(args...);
  }

 private:
  Result (*pointer_)(Args...) = nullptr;
  const char* name_;
  uint32_t since_;
};

struct Api {
#define TEXTOPIA_ORT_FIELD(slot, since, name, result, args) Function<result args> name{#name, since};
  TEXTOPIA_ORT_SLOTS(TEXTOPIA_ORT_FIELD)
#undef TEXTOPIA_ORT_FIELD

  // `table` is what get_api(version) returned; slots newer than `version` stay unbound.
  void bind(const void* table, uint32_t version) {
    const auto* slots = static_cast<void* const*>(table);
#define TEXTOPIA_ORT_BIND(slot, since, name, result, args) \
  if (since <= version) name.bind(slots[slot]);
    TEXTOPIA_ORT_SLOTS(TEXTOPIA_ORT_BIND)
#undef TEXTOPIA_ORT_BIND
  }
};

namespace detail {

struct Slot {
  int number;
  uint32_t since;
};

inline constexpr auto kSlots = std::to_array<Slot>({
#define TEXTOPIA_ORT_ROW(slot, since, name, result, args) {slot, since},
    TEXTOPIA_ORT_SLOTS(TEXTOPIA_ORT_ROW)
#undef TEXTOPIA_ORT_ROW
});

// Strictly rising slot numbers (so none twice) inside the known table; versions never fall along an
// append-only table.
constexpr bool is_well_formed() {
  for (size_t i = 0; i < kSlots.size(); ++i) {
    if (kSlots[i].number < 0 || kSlots[i].number >= kKnownSlots) return false;
    if (kSlots[i].since < 1 || kSlots[i].since > kKnownVersion) return false;
    if (i > 0 && kSlots[i].number <= kSlots[i - 1].number) return false;
    if (i > 0 && kSlots[i].since < kSlots[i - 1].since) return false;
  }
  return true;
}
static_assert(is_well_formed());

}  // namespace detail
}  // namespace textopia::ort::abi
