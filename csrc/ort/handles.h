// Inside csrc/ort only: the opened library, owners of its objects, and the one check of its status values.
#pragma once

#include <memory>
#include <string>

#include "ort/abi.h"
#include "ort/runtime.h"

namespace textopia::ort {

struct Runtime {
  abi::Api api;
  abi::Env* env = nullptr;
  abi::MemoryInfo* cpu_memory = nullptr;
  abi::Allocator* allocator = nullptr;  // ORT's own, not to be released
  RuntimeInfo info;
};

// Opens the library at the first call. Throws configuration, or forked_process in a child of the process that
// opened it.
const Runtime& runtime();

// The opened library or null; never opens and never throws.
const Runtime* opened_runtime() noexcept;

// True in a forked child of the process that opened the library: its thread pools do not exist there.
bool is_forked_child() noexcept;

// Throws forked_process when is_forked_child().
void check_not_forked(const std::string& label);

// A child must not release what it inherited: ORT would wait for threads that only the parent has.
template <typename T, auto kRelease>
struct Releaser {
  void operator()(T* object) const noexcept {
    const Runtime* library = opened_runtime();
    if (library != nullptr && !is_forked_child()) (library->api.*kRelease)(object);
  }
};

template <typename T, auto kRelease>
using Handle = std::unique_ptr<T, Releaser<T, kRelease>>;

using AllocatorHandle = Handle<abi::Allocator, &abi::Api::ReleaseAllocator>;
using CudaOptionsHandle = Handle<abi::CudaProviderOptions, &abi::Api::ReleaseCUDAProviderOptions>;
using CustomOpDomainHandle = Handle<abi::CustomOpDomain, &abi::Api::ReleaseCustomOpDomain>;
using IoBindingHandle = Handle<abi::IoBinding, &abi::Api::ReleaseIoBinding>;
using MemoryInfoHandle = Handle<abi::MemoryInfo, &abi::Api::ReleaseMemoryInfo>;
using RunOptionsHandle = Handle<abi::RunOptions, &abi::Api::ReleaseRunOptions>;
using SessionHandle = Handle<abi::Session, &abi::Api::ReleaseSession>;
using SessionOptionsHandle = Handle<abi::SessionOptions, &abi::Api::ReleaseSessionOptions>;
using ShapeInfoHandle = Handle<abi::ShapeInfo, &abi::Api::ReleaseTensorTypeAndShapeInfo>;
using TypeInfoHandle = Handle<abi::TypeInfo, &abi::Api::ReleaseTypeInfo>;
using ValueHandle = Handle<abi::Value, &abi::Api::ReleaseValue>;

inline constexpr const char* kCudaHint =
    "Install it with `pip install textopia-fast[cuda]`; `textopia-fast doctor` lists what is missing.";

// What was being done decides what an unspecific failure means.
enum class Activity { kLoad, kRun, kSetup, kOther };

[[noreturn]] void throw_status(const abi::Api& api, abi::Status* status, Activity activity,
                               const std::string& label, const std::string& context);

// Does nothing on success; otherwise consumes `status` and throws the Error that fits it. `context` says in
// words what failed ("input 'sample' cannot be bound").
inline void check_status(const abi::Api& api, abi::Status* status, Activity activity,
                         const std::string& label, const char* context) {
  if (status != nullptr) [[unlikely]]
    throw_status(api, status, activity, label, context);
}

}  // namespace textopia::ort
