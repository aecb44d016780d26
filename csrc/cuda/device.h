// One GPU: its primary context (the one that ONNX Runtime and torch use too, so that pointers and streams are
// shared), and owners of what is made in it. Every call of the driver is checked.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "cuda/driver.h"

namespace textopia::cuda {

class Device {
 public:
  // Throws Error{configuration} when there is no such device, or its context cannot be made.
  static std::shared_ptr<const Device> open(std::shared_ptr<const Driver> driver, int ordinal);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const Driver& driver() const { return *driver_; }
  const api::Table& api() const { return driver_->api(); }
  int ordinal() const { return ordinal_; }
  const DeviceInfo& info() const { return driver_->devices()[static_cast<size_t>(ordinal_)]; }
  std::string label() const;  // "cuda:0"

  // Throws out_of_memory (the device stays usable), device_lost, configuration or execution_failed unless
  // `function` succeeds. The context must be current.
  template <typename... Parameters, typename... Args>
  void call(const api::Call<Parameters...>& function, Args... args) const {
    const api::Result result = function(args...);
    if (result != api::kSuccess) [[unlikely]]
      fail(result, function.name());
  }

  // Throws device_lost after an error that the context does not survive, forked_process in a child process.
  void check_usable() const;
  // Asks the driver: after a failure of somebody else's work in the context nothing here knows of it yet.
  bool answers() const noexcept;
  bool is_lost() const { return is_lost_.load(std::memory_order_relaxed); }

  struct Memory {
    size_t free_bytes, total_bytes;
  };
  Memory memory() const;

 private:
  friend class CurrentDevice;
  Device(std::shared_ptr<const Driver> driver, int ordinal);
  [[noreturn]] void fail(api::Result result, const char* call) const;

  std::shared_ptr<const Driver> driver_;
  int ordinal_;
  api::DeviceId id_ = 0;
  api::Context* context_ = nullptr;
  mutable std::atomic<bool> is_lost_{false};
};

// Makes the device current on this thread for a scope. Throws like check_usable().
class CurrentDevice {
 public:
  explicit CurrentDevice(const Device& device);
  ~CurrentDevice();
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  const Device& device_;
};

// Owns one object of the driver. The end of a scope cannot throw, and what a lost context or a parent process
// left behind is left to them.
template <typename Raw, auto kRelease>
class Owner {
 public:
  Owner() = default;
  Owner(std::shared_ptr<const Device> device, Raw raw) : device_(std::move(device)), raw_(raw) {}
  ~Owner() { reset(); }
  Owner(Owner&& other) noexcept : device_(std::move(other.device_)), raw_(std::exchange(other.raw_, Raw{})) {}
  Owner& operator=(Owner&& other) noexcept {
    if (this != &other) {
      reset();
      device_ = std::move(other.device_);
      raw_ = std::exchange(other.raw_, Raw{});
    }
    return *this;
  }

  Raw get() const { return raw_; }
  const Device& device() const { return *device_; }

  void reset() {
    if (raw_ == Raw{} || device_->driver().is_forked()) return;
    const Raw raw = std::exchange(raw_, Raw{});
    try {
      const CurrentDevice current(*device_);
      (device_->api().*kRelease)(raw);
    } catch (const Error&) {  // a lost device frees everything itself
    }
  }

 private:
  std::shared_ptr<const Device> device_;
  Raw raw_{};
};

using ModuleOwner = Owner<api::Module*, &api::Table::cuModuleUnload>;

class Event : public Owner<api::Event*, &api::Table::cuEventDestroy_v2> {
 public:
  explicit Event(std::shared_ptr<const Device> device, bool has_timing = false);
  void wait() const;  // blocks the host until what was recorded before it is done
  // Milliseconds from `start` to this one; both made with has_timing, recorded and waited for.
  float milliseconds_since(const Event& start) const;
};

class Stream : public Owner<api::Stream*, &api::Table::cuStreamDestroy_v2> {
 public:
  explicit Stream(std::shared_ptr<const Device> device);
  void record(const Event& event) const;
  void wait() const;  // blocks the host until the stream is idle
};

// Memory of the device, not initialised; 256-byte aligned.
class DeviceBuffer : public Owner<api::Pointer, &api::Table::cuMemFree_v2> {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(std::shared_ptr<const Device> device, size_t bytes);  // throws out_of_memory with the sizes
};

// Host memory that the device reads and writes itself, without a copy through the driver's own.
class PinnedBuffer : public Owner<void*, &api::Table::cuMemFreeHost> {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(std::shared_ptr<const Device> device, size_t bytes);
  float* floats() const { return static_cast<float*>(get()); }
};

// Copies ordered by the stream; the host's memory must live until the stream has passed them.
void upload(const Stream& stream, api::Pointer target, const void* source, size_t bytes);
void download(const Stream& stream, void* target, api::Pointer source, size_t bytes);
void copy(const Stream& stream, api::Pointer target, api::Pointer source, size_t bytes);  // on the device

}  // namespace textopia::cuda
