#include "ort/run_control.h"

#include <string>

namespace textopia::ort {
namespace {

// Neither call can fail on valid options, and terminate() must not throw into a stranger's thread.
void discard(const Runtime& library, abi::Status* status) {
  if (status != nullptr) library.api.ReleaseStatus(status);
}

}  // namespace

RunOptionsHandle make_run_options(const Runtime& library, bool is_asynchronous, std::optional<int> graph) {
  abi::RunOptions* raw = nullptr;
  const auto checked = [&](abi::Status* status) {
    check_status(library.api, status, Activity::kOther, "ONNX Runtime", "run options cannot be made");
  };
  checked(library.api.CreateRunOptions(&raw));
  RunOptionsHandle handle(raw);
  if (is_asynchronous)
    checked(library.api.AddRunConfigEntry(raw, "disable_synchronize_execution_providers", "1"));
  if (graph) checked(library.api.AddRunConfigEntry(raw, "gpu_graph_id", std::to_string(*graph).c_str()));
  return handle;
}

const abi::RunOptions* RunControl::State::get(const Runtime& library) {
  if (const abi::RunOptions* made = options.load(std::memory_order_acquire)) return made;
  std::lock_guard lock(mutex);
  if (owner == nullptr) {
    // What is asynchronous may run where graphs are captured.
    owner =
        make_run_options(library, is_asynchronous, is_asynchronous ? std::optional(kNoGraph) : std::nullopt);
    if (is_terminated) discard(library, library.api.RunOptionsSetTerminate(owner.get()));
    options.store(owner.get(), std::memory_order_release);
  }
  return owner.get();
}

void RunControl::State::set(bool value) {
  std::lock_guard lock(mutex);
  if (value) {
    ++termination_count;
    is_terminated = true;
  }
  const Runtime* library = opened_runtime();
  if (owner != nullptr && library != nullptr && !is_forked_child())
    discard(*library, value ? library->api.RunOptionsSetTerminate(owner.get())
                            : library->api.RunOptionsUnsetTerminate(owner.get()));
  if (!value) is_terminated = false;
}

RunControl::RunControl(bool is_asynchronous) : state_(std::make_unique<State>(is_asynchronous)) {}
RunControl::~RunControl() = default;
void RunControl::terminate() { state_->set(true); }
void RunControl::reset() { state_->set(false); }
bool RunControl::is_terminated() const { return state_->is_terminated.load(std::memory_order_relaxed); }

}  // namespace textopia::ort
