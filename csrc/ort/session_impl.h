// Inside csrc/ort only: what a Session is made of.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "ort/handles.h"
#include "ort/session.h"

namespace textopia::ort {

// "'a', 'b'", or "none".
std::string names_of(const std::vector<TensorInfo>& infos);

// Makes the plugin's device take the whole graph: a node that it leaves is an error of CreateSession.
void add_plugin(const Runtime& library, const Plugin& plugin, abi::SessionOptions* options,
                const std::string& label);

class SessionImpl final : public Session {
 public:
  SessionImpl(const Runtime& library, SessionHandle handle, std::string label, std::vector<TensorInfo> inputs,
              std::vector<TensorInfo> outputs, std::optional<CudaOptions> cuda,
              MemoryInfoHandle device_memory, bool has_plugin, std::shared_ptr<const void> ops)
      : library_(library),
        cuda_(std::move(cuda)),
        ops_(std::move(ops)),
        handle_(std::move(handle)),
        label_(std::move(label)),
        inputs_(std::move(inputs)),
        outputs_(std::move(outputs)),
        device_memory_(std::move(device_memory)),
        has_plugin_(has_plugin) {}

  const std::vector<TensorInfo>& inputs() const override { return inputs_; }
  const std::vector<TensorInfo>& outputs() const override { return outputs_; }
  const std::string& label() const override { return label_; }
  const CudaOptions* cuda() const override { return cuda_ ? &*cuda_ : nullptr; }

  const Runtime& library() const { return library_; }
  abi::Session* raw() const { return handle_.get(); }
  bool has_plugin() const { return has_plugin_; }
  const abi::MemoryInfo* memory(Memory memory) const {
    return memory == Memory::kDevice && device_memory_ ? device_memory_.get() : library_.cpu_memory;
  }

 private:
  const Runtime& library_;
  std::optional<CudaOptions> cuda_;  // before the session, which ends before its stream
  std::shared_ptr<const void> ops_;  // before the session, whose kernels point into it
  SessionHandle handle_;
  std::string label_;
  std::vector<TensorInfo> inputs_;
  std::vector<TensorInfo> outputs_;
  MemoryInfoHandle device_memory_;  // null on the CPU
  bool has_plugin_;
};

}  // namespace textopia::ort
