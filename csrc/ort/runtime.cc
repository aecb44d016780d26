#include "ort/runtime.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <mutex>

#include "ort/handles.h"

namespace textopia::ort {
namespace {

constexpr const char* kLibraryVariable = "TEXTOPIA_ORT_LIBRARY";
constexpr const char* kInstallHint =
    "Install it with `pip install textopia-fast[cpu]`, or `pip install textopia-fast[cuda]` for NVIDIA GPUs.";

struct Shared {
  std::mutex mutex;
  std::vector<std::string> candidates;
  // Written once and never freed: sessions may outlive the destruction of static objects at exit.
  std::atomic<const Runtime*> opened{nullptr};
  std::atomic<bool> forked{false};
};

Shared& shared() {
  static Shared* const instance = new Shared;
  return *instance;
}

// A library must not write to its user's terminal; what matters comes back as a status.
void discard_log(void*, int, const char*, const char*, const char*, const char*) {}

[[noreturn]] void refuse(const std::string& found) { throw Error(code::kConfiguration, found); }

uint32_t api_version_of(const std::string& version) {
  unsigned major = 0, minor = 0;
  if (std::sscanf(version.c_str(), "%u.%u", &major, &minor) != 2)
    refuse(text("its version \"", version, "\" cannot be read"));
  if (major != 1 || minor < static_cast<unsigned>(kMinimumMinor))
    refuse(text("it is version ", version, ", allowed are 1.", kMinimumMinor, " and newer 1.x"));
  // A library asked for more than it has answers null and prints.
  return std::min<uint32_t>(minor, abi::kKnownVersion);
}

std::vector<std::string> providers_of(const abi::Api& api) {
  char** names = nullptr;
  int count = 0;
  check_status(api, api.GetAvailableProviders(&names, &count), Activity::kOther, "ONNX Runtime",
               "its providers cannot be listed");
  std::vector<std::string> providers(names, names + count);
  check_status(api, api.ReleaseAvailableProviders(names, count), Activity::kOther, "ONNX Runtime",
               "its providers cannot be listed");
  return providers;
}

// Throws Error{configuration} that says what is wrong with the library at `path`.
const Runtime* open(const std::string& path) {
  dlerror();
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* reason = dlerror();
    refuse(reason != nullptr ? reason : "it cannot be opened");
  }
  // From here on the library stays loaded whatever happens: it may have started threads.
  void* symbol = dlsym(library, "OrtGetApiBase");
  if (symbol == nullptr) refuse("it is not ONNX Runtime (no OrtGetApiBase)");
  const abi::ApiBase* base = reinterpret_cast<const abi::ApiBase* (*)()>(symbol)();
  auto opened = std::make_unique<Runtime>();
  opened->info.path = path;
  opened->info.version = base->get_version_string();
  const uint32_t version = api_version_of(opened->info.version);
  opened->info.api_version = static_cast<int>(version);
  const void* table = base->get_api(version);
  if (table == nullptr) refuse(text("it does not offer API version ", version));
  opened->api.bind(table, version);
  const abi::Api& api = opened->api;
  auto checked = [&](abi::Status* status) {
    check_status(api, status, Activity::kOther, "ONNX Runtime", "its environment cannot be made");
  };
  checked(api.CreateEnvWithCustomLogger(discard_log, nullptr, abi::kLogError, "textopia_fast", &opened->env));
  checked(api.CreateCpuMemoryInfo(abi::kArenaAllocator, abi::kMemoryDefault, &opened->cpu_memory));
  checked(api.GetAllocatorWithDefaultOptions(&opened->allocator));
  opened->info.providers = providers_of(api);
  return opened.release();
}

const Runtime* open_first(const std::vector<std::string>& candidates) {
  const char* chosen = std::getenv(kLibraryVariable);
  const bool is_chosen = chosen != nullptr && *chosen != '\0';
  const std::vector<std::string> paths = is_chosen ? std::vector<std::string>{chosen} : candidates;
  // Recent official wheels start a telemetry thread with the environment; a user's own setting stays.
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);
  std::string tried;
  for (const std::string& path : paths) {
    try {
      return open(path);
    } catch (const Error& error) {
      tried += text(tried.empty() ? "" : "; ", path, ": ", error.what());
    }
  }
  if (is_chosen)
    throw Error(code::kConfiguration,
                text("ONNX Runtime: ", kLibraryVariable, " names no usable library: ", tried, "."),
                {{"hint", text("Unset it or let it name libonnxruntime.so of 1.", kMinimumMinor,
                               " or newer. ", kInstallHint)},
                 {"tried", tried}});
  if (tried.empty()) tried = "no installed package named onnxruntime was found";
  throw Error(code::kConfiguration, text("ONNX Runtime: no usable library: ", tried, "."),
              {{"hint", kInstallHint}, {"tried", tried}});
}

}  // namespace

bool is_forked_child() noexcept { return shared().forked.load(std::memory_order_relaxed); }

void check_not_forked(const std::string& label) {
  if (!is_forked_child()) [[likely]]
    return;
  throw Error(
      code::kForkedProcess, text(label, ": ONNX Runtime was opened before this process was forked."),
      {{"hint",
        "Start worker processes with the \"spawn\" method, or load the first model after the fork."}});
}

const Runtime* opened_runtime() noexcept { return shared().opened.load(std::memory_order_acquire); }

const Runtime& runtime() {
  Shared& state = shared();
  check_not_forked("ONNX Runtime");
  if (const Runtime* opened = opened_runtime()) return *opened;
  std::lock_guard lock(state.mutex);
  if (const Runtime* opened = opened_runtime()) return *opened;
  const Runtime* opened = open_first(state.candidates);  // a failure is not kept: the next call tries again
  pthread_atfork(nullptr, nullptr, [] { shared().forked.store(true, std::memory_order_relaxed); });
  state.opened.store(opened, std::memory_order_release);
  return *opened;
}

void set_library_candidates(std::vector<std::string> paths) {
  std::lock_guard lock(shared().mutex);
  shared().candidates = std::move(paths);
}

const RuntimeInfo& runtime_info() { return runtime().info; }

}  // namespace textopia::ort
