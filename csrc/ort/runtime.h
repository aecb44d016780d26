// Finds and opens ONNX Runtime's shared library at run time. One library and one environment per process.
#pragma once

#include <string>
#include <vector>

namespace textopia::ort {

inline constexpr int kMinimumMinor = 23;  // 1.23: the oldest release that is tested

// Where to look, best first (paths of libonnxruntime.so*, found by Python without importing onnxruntime).
// Takes effect at the first session; called once by the package. TEXTOPIA_ORT_LIBRARY, when set, wins.
void set_library_candidates(std::vector<std::string> paths);

struct RuntimeInfo {
  std::string path;
  std::string version;  // "1.32.0"
  int api_version = 0;
  std::vector<std::string> providers;  // "CPUExecutionProvider", ...
};

// Opens the library if that was not done yet. Throws Error{configuration} that names everything tried and the
// two extras textopia-fast[cpu] and textopia-fast[cuda].
const RuntimeInfo& runtime_info();

}  // namespace textopia::ort
