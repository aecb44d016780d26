// Inside csrc/ort only: what a Session is made of.
#pragma once

#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "ort/handles.h"
#include "ort/session.h"

namespace textopia::ort {

class OpDomain;

// "'a', 'b'", or "none".
std::string names_of(const std::vector<TensorInfo>& infos);

// Makes the plugin's device take the whole graph: a node that it leaves is an error of CreateSession.
void add_plugin(const Runtime& library, const Plugin& plugin, abi::SessionOptions* options,
                const std::string& label);

// Makes a CUDA session ready for check_placement().
void request_placement(const Runtime& library, abi::SessionOptions* options, const std::string& label);

// A node that the CUDA provider cannot take is an error that names it, not a silent detour over the CPU.
// Throws model_unsupported.
void check_placement(const Runtime& library, const abi::Session* session, const std::string& label);

class SessionImpl final : public Session {
 public:
  SessionImpl(const Runtime& library, std::shared_ptr<const OpDomain> ops, SessionHandle handle,
              std::string label, std::vector<TensorInfo> inputs, std::vector<TensorInfo> outputs,
              std::optional<CudaOptions> cuda, MemoryInfoHandle device_memory, bool has_plugin,
              GraphCapture capture)
      : library_(library),
        cuda_(std::move(cuda)),
        ops_(std::move(ops)),
        handle_(std::move(handle)),
        label_(std::move(label)),
        inputs_(std::move(inputs)),
        outputs_(std::move(outputs)),
        device_memory_(std::move(device_memory)),
        has_plugin_(has_plugin),
        capture_(std::move(capture)) {}

  // The provider ends the process where it cannot free a captured graph, as on a lost device: what is lost
  // is left to the end of the process.
  ~SessionImpl() override {
    if (is_lost()) static_cast<void>(handle_.release());
  }

  const std::vector<TensorInfo>& inputs() const override { return inputs_; }
  const std::vector<TensorInfo>& outputs() const override { return outputs_; }
  const std::string& label() const override { return label_; }
  const CudaOptions* cuda() const override { return cuda_ ? &*cuda_ : nullptr; }

  const GraphCapture& graph_capture() const override { return capture_; }

  // Never the same twice: ORT replays what it knows by a number, whatever is bound.
  int next_graph_id() const { return ++last_graph_id_; }
  bool is_lost() const { return cuda_ && cuda_->is_lost && cuda_->is_lost(); }
  const Runtime& library() const { return library_; }
  abi::Session* raw() const { return handle_.get(); }
  bool has_plugin() const { return has_plugin_; }
  const abi::MemoryInfo* memory(Memory memory) const {
    return memory == Memory::kDevice && device_memory_ ? device_memory_.get() : library_.cpu_memory;
  }

 private:
  const Runtime& library_;
  std::optional<CudaOptions> cuda_;      // before the session, which ends before its stream
  std::shared_ptr<const OpDomain> ops_;  // and before its operators
  SessionHandle handle_;
  std::string label_;
  std::vector<TensorInfo> inputs_;
  std::vector<TensorInfo> outputs_;
  MemoryInfoHandle device_memory_;  // null on the CPU
  bool has_plugin_;
  GraphCapture capture_;
  mutable std::atomic<int> last_graph_id_{0};
};

}  // namespace textopia::ort
