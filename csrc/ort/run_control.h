// The options of ONNX Runtime's runs, and what stands behind RunControl.
#pragma once

#include <atomic>
#include <mutex>
#include <optional>

#include "ort/session_impl.h"

namespace textopia::ort {

inline constexpr int kNoGraph = -1;  // a run without a number would be captured under 0

RunOptionsHandle make_run_options(const Runtime& library, bool is_asynchronous, std::optional<int> graph);

struct RunControl::State {
  explicit State(bool is_asynchronous) : is_asynchronous(is_asynchronous) {}

  const bool is_asynchronous;
  std::mutex mutex;  // orders terminate(), reset() and the first use
  std::atomic<bool> is_terminated{false};
  std::atomic<uint64_t> termination_count{0};  // a reset() may follow before the run that was stopped returns
  std::atomic<abi::RunOptions*> options{nullptr};
  RunOptionsHandle owner;

  // Made at the first run, so that a control can exist before any library is opened.
  const abi::RunOptions* get(const Runtime& library);

  // Our own flag covers ORT's: it is up before that and down after it, so that a run that ORT stops always
  // finds either the flag or a new count.
  void set(bool value);
};

}  // namespace textopia::ort
