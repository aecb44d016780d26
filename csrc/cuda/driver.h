// NVIDIA's driver, opened at run time, and what is known about its devices.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "cuda/driver_api.h"

namespace textopia::cuda {

inline constexpr const char* kDriverLibrary = "libcuda.so.1";
// CUDA 12: the kernels are assembled by its ptxas, and every driver from 525 on has it.
inline constexpr int kMinimumVersion = 12000;

struct DeviceInfo {
  std::string name;
  int architecture = 0;  // compute capability times ten: 90 for 9.0
  int multiprocessors = 0;
  size_t memory_bytes = 0;
};

class Driver {
 public:
  // Throws Error{configuration}: no library (no NVIDIA driver), a library that lacks a function or is older
  // than kMinimumVersion, or a driver that does not start. No device is no error here.
  static std::shared_ptr<const Driver> open(const std::string& library);

  int version() const { return version_; }  // of CUDA: 12040 for 12.4
  const std::string& library() const { return library_; }
  const std::vector<DeviceInfo>& devices() const { return devices_; }
  const api::Table& api() const { return api_; }

  // True in a child of the process that opened the driver, where nothing of it may be used.
  bool is_forked() const;

  // "cuMemAlloc_v2: CUDA_ERROR_OUT_OF_MEMORY (out of memory)".
  std::string describe(api::Result result, const char* call) const;

 private:
  Driver() = default;
  template <typename... Parameters, typename... Args>
  void start(const api::Call<Parameters...>& call, Args... args) const;
  void find_devices();

  std::string library_;
  api::Table api_;
  int version_ = 0;
  std::vector<DeviceInfo> devices_;
  pid_t process_ = 0;
};

}  // namespace textopia::cuda
