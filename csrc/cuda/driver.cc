#include "cuda/driver.h"

#include <dlfcn.h>
#include <unistd.h>

#include <atomic>

namespace textopia::cuda {
namespace {

[[noreturn]] void refuse(const std::string& found, const char* hint) {
  throw Error(code::kConfiguration, text("CUDA: ", found, "."), {{"hint", hint}});
}

[[noreturn]] void refuse_fork() {
  throw Error(code::kForkedProcess, "CUDA: the driver was started before this process was forked.",
              {{"hint", "Start worker processes with the \"spawn\" method."}});
}

}  // namespace

std::shared_ptr<const Driver> Driver::open(const std::string& library) {
  // A driver that has been started does not start again in a forked child, whoever asks.
  static std::atomic<pid_t> first_process{0};
  if (const pid_t first = first_process.load(); first != 0 && first != getpid()) refuse_fork();
  dlerror();
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* reason = dlerror();
    refuse(
        text("no NVIDIA driver was found: ", reason != nullptr ? reason : library),
        "Install NVIDIA's driver 525 or newer; in a container, start it with GPUs. Or use device=\"cpu\".");
  }
  // From here on the library stays loaded whatever happens: it may have started threads.
  std::shared_ptr<Driver> driver(new Driver);
  driver->library_ = library;
  driver->process_ = getpid();
  api::Table& api = driver->api_;
  const char* missing = nullptr;
  const auto bind = [&](auto& call) {
    void* address = dlsym(handle, call.name());
    if (address == nullptr && missing == nullptr) missing = call.name();
    call.bind(address);
  };
#define TEXTOPIA_CUDA_BIND(name, args) bind(api.name);
  TEXTOPIA_CUDA_FUNCTIONS(TEXTOPIA_CUDA_BIND)
#undef TEXTOPIA_CUDA_BIND
  if (missing != nullptr) refuse(text(library, " has no ", missing), "Install NVIDIA's driver 525 or newer.");
  first_process.store(getpid());
  driver->start(api.cuInit, 0u);
  driver->start(api.cuDriverGetVersion, &driver->version_);
  if (driver->version_ < kMinimumVersion)
    refuse(text("the driver is for CUDA ", driver->version_ / 1000, ".", driver->version_ % 1000 / 10,
                ", 12.0 and newer are allowed"),
           "Install NVIDIA's driver 525 or newer.");
  driver->find_devices();
  return driver;
}

template <typename... Parameters, typename... Args>
void Driver::start(const api::Call<Parameters...>& call, Args... args) const {
  const api::Result result = call(args...);
  if (result == api::kSuccess) return;
  if (result == api::kNotInitialized) refuse_fork();  // somebody else has started it in the parent
  const char* hint = "`nvidia-smi` shows whether the driver works on this machine.";
  if (result == api::kSystemDriverMismatch || result == api::kStubLibrary)
    hint =
        "The library is not that of the running driver: restart after an update, or take the stub library "
        "of a toolkit out of LD_LIBRARY_PATH.";
  refuse(text("the driver does not start: ", describe(result, call.name())), hint);
}

void Driver::find_devices() {
  int count = 0;
  const api::Result counted = api_.cuDeviceGetCount(&count);
  if (counted == api::kNoDevice) return;
  if (counted != api::kSuccess)
    refuse(text("the devices cannot be counted: ", describe(counted, "cuDeviceGetCount")),
           "`nvidia-smi` shows whether the driver works on this machine.");
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    api::DeviceId id = 0;
    DeviceInfo info;
    char name[256] = {};
    int major = 0, minor = 0;
    start(api_.cuDeviceGet, &id, ordinal);
    start(api_.cuDeviceGetName, name, static_cast<int>(sizeof name) - 1, id);
    start(api_.cuDeviceGetAttribute, &major, api::kComputeCapabilityMajor, id);
    start(api_.cuDeviceGetAttribute, &minor, api::kComputeCapabilityMinor, id);
    start(api_.cuDeviceGetAttribute, &info.multiprocessors, api::kMultiprocessorCount, id);
    start(api_.cuDeviceTotalMem_v2, &info.memory_bytes, id);
    info.name = name;
    info.architecture = 10 * major + minor;
    devices_.push_back(std::move(info));
  }
}

bool Driver::is_forked() const { return getpid() != process_; }

std::string Driver::describe(api::Result result, const char* call) const {
  const char* name = nullptr;
  const char* meaning = nullptr;
  if (api_.cuGetErrorName(result, &name) != api::kSuccess || name == nullptr) name = "an unknown error";
  if (api_.cuGetErrorString(result, &meaning) != api::kSuccess || meaning == nullptr) meaning = "no text";
  return text(call, ": ", name, " (", result, ", ", meaning, ")");
}

}  // namespace textopia::cuda
