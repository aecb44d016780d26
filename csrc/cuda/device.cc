#include "cuda/device.h"

namespace textopia::cuda {
namespace {

// After these the context answers every call with the same error.
bool is_sticky(api::Result result) {
  switch (result) {
    case api::kDeinitialized:
    case api::kEccUncorrectable:
    case api::kNvlinkUncorrectable:
    case api::kIllegalAddress:
    case api::kLaunchTimeout:
    case api::kContextIsDestroyed:
    case api::kAssert:
    case api::kHardwareStackError:
    case api::kIllegalInstruction:
    case api::kMisalignedAddress:
    case api::kInvalidAddressSpace:
    case api::kInvalidPc:
    case api::kLaunchFailed:
    case api::kExternalDevice: return true;
    default: return false;
  }
}

bool is_about_the_installation(api::Result result) {
  switch (result) {
    case api::kStubLibrary:
    case api::kRequiresNewerDriver:
    case api::kDeviceUnavailable:
    case api::kNoDevice:
    case api::kInvalidDevice:
    case api::kInvalidImage:
    case api::kNoBinaryForGpu:
    case api::kInvalidPtx:
    case api::kUnsupportedPtxVersion:
    case api::kSystemDriverMismatch: return true;
    default: return false;
  }
}

constexpr const char* kLostHint =
    "The process has to be restarted before this GPU can be used again; other devices and the CPU work on.";

}  // namespace

std::shared_ptr<const Device> Device::open(std::shared_ptr<const Driver> driver, int ordinal) {
  if (driver->is_forked())
    throw Error(code::kForkedProcess, "CUDA: the driver was opened before this process was forked.",
                {{"hint", "Start worker processes with the \"spawn\" method."}});
  const auto count = driver->devices().size();
  if (ordinal < 0 || static_cast<size_t>(ordinal) >= count)
    throw Error(code::kConfiguration,
                text("device: cuda:", ordinal, " was asked for, the driver shows ", count, " devices",
                     count > 0 ? text(", cuda:0 to cuda:", count - 1) : "", "."),
                {{"hint", "CUDA_VISIBLE_DEVICES and the container decide which devices are shown."}});
  return std::shared_ptr<const Device>(new Device(std::move(driver), ordinal));
}

Device::Device(std::shared_ptr<const Driver> driver, int ordinal)
    : driver_(std::move(driver)), ordinal_(ordinal) {
  call(api().cuDeviceGet, &id_, ordinal);
  call(api().cuDevicePrimaryCtxRetain, &context_, id_);
}

Device::~Device() {
  if (!driver_->is_forked()) api().cuDevicePrimaryCtxRelease_v2(id_);
}

std::string Device::label() const { return text("cuda:", ordinal_); }

void Device::fail(api::Result result, const char* call) const {
  const std::string cause = driver_->describe(result, call);
  Error::Details details = {{"component", label()}, {"cause", cause}};
  if (is_sticky(result)) {
    is_lost_.store(true, std::memory_order_relaxed);
    details.emplace_back("hint", kLostHint);
    throw Error(code::kDeviceLost, text(label(), ": the device stopped: ", cause, "."), std::move(details));
  }
  if (result == api::kOutOfMemory)
    throw Error(code::kOutOfMemory, text(label(), ": no memory left: ", cause, "."), std::move(details));
  const char* kind = is_about_the_installation(result) ? code::kConfiguration : code::kExecution;
  throw Error(kind, text(label(), ": ", cause, "."), std::move(details));
}

void Device::check_usable() const {
  if (driver_->is_forked())
    throw Error(code::kForkedProcess, text(label(), ": CUDA was started before this process was forked."),
                {{"hint", "Start worker processes with the \"spawn\" method, or load the model in them."}});
  if (is_lost())
    throw Error(code::kDeviceLost, text(label(), ": the device stopped earlier in this process."),
                {{"component", label()}, {"hint", kLostHint}});
}

Device::Memory Device::memory() const {
  const CurrentDevice current(*this);
  Memory memory{};
  call(api().cuMemGetInfo_v2, &memory.free_bytes, &memory.total_bytes);
  return memory;
}

bool Device::answers() const noexcept {
  try {
    memory();
  } catch (const Error&) {
  }
  return !is_lost();
}

CurrentDevice::CurrentDevice(const Device& device) : device_(device) {
  device.check_usable();
  device.call(device.api().cuCtxPushCurrent_v2, device.context_);
}

CurrentDevice::~CurrentDevice() {
  api::Context* popped = nullptr;
  device_.api().cuCtxPopCurrent_v2(&popped);
}

Event::Event(std::shared_ptr<const Device> device, bool has_timing) {
  const CurrentDevice current(*device);
  api::Event* raw = nullptr;
  device->call(device->api().cuEventCreate, &raw, has_timing ? 0u : api::kDisableTiming);
  Owner::operator=(Owner(std::move(device), raw));
}

void Event::wait() const { device().call(device().api().cuEventSynchronize, get()); }

float Event::milliseconds_since(const Event& start) const {
  float milliseconds = 0.0f;
  device().call(device().api().cuEventElapsedTime, &milliseconds, start.get(), get());
  return milliseconds;
}

Stream::Stream(std::shared_ptr<const Device> device) {
  const CurrentDevice current(*device);
  api::Stream* raw = nullptr;
  device->call(device->api().cuStreamCreate, &raw, api::kNonBlocking);
  Owner::operator=(Owner(std::move(device), raw));
}

void Stream::record(const Event& event) const {
  device().call(device().api().cuEventRecord, event.get(), get());
}

void Stream::wait() const { device().call(device().api().cuStreamSynchronize, get()); }

DeviceBuffer::DeviceBuffer(std::shared_ptr<const Device> device, size_t bytes) {
  if (bytes == 0) return;
  const CurrentDevice current(*device);
  api::Pointer raw = 0;
  try {
    device->call(device->api().cuMemAlloc_v2, &raw, bytes);
  } catch (const Error& error) {
    if (error.code() != std::string_view(code::kOutOfMemory)) throw;
    const Device::Memory memory = device->memory();
    throw Error(code::kOutOfMemory,
                text(device->label(), ": no memory for a buffer of ", bytes, " bytes; ", memory.free_bytes,
                     " of ", memory.total_bytes, " are free."),
                error.details());
  }
  Owner::operator=(Owner(std::move(device), raw));
}

PinnedBuffer::PinnedBuffer(std::shared_ptr<const Device> device, size_t bytes) {
  if (bytes == 0) return;
  const CurrentDevice current(*device);
  void* raw = nullptr;
  device->call(device->api().cuMemAllocHost_v2, &raw, bytes);
  Owner::operator=(Owner(std::move(device), raw));
}

void upload(const Stream& stream, api::Pointer target, const void* source, size_t bytes) {
  const Device& device = stream.device();
  if (bytes > 0) device.call(device.api().cuMemcpyHtoDAsync_v2, target, source, bytes, stream.get());
}

void download(const Stream& stream, void* target, api::Pointer source, size_t bytes) {
  const Device& device = stream.device();
  if (bytes > 0) device.call(device.api().cuMemcpyDtoHAsync_v2, target, source, bytes, stream.get());
}

void copy(const Stream& stream, api::Pointer target, api::Pointer source, size_t bytes) {
  const Device& device = stream.device();
  if (bytes > 0) device.call(device.api().cuMemcpyDtoDAsync_v2, target, source, bytes, stream.get());
}

}  // namespace textopia::cuda
