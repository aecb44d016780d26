// ONNX Runtime sessions by the C ABI (no headers, no linking): load a graph, look at its border, bind, run.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/tensor.h"
#include "ort/op_session.h"

namespace textopia::ort {

// One input or output of a graph. shape holds -1 where the size is free; symbols then holds its name or "".
struct TensorInfo {
  std::string name;
  DType dtype;
  int onnx_type;  // ONNX element type number, also when dtype cannot express it
  Shape shape;
  std::vector<std::string> symbols;
};

// An execution provider in a library of its own, and the device of it that runs the graph.
struct Plugin {
  using Pairs = std::vector<std::pair<std::string, std::string>>;
  std::string library;   // path
  std::string provider;  // "OpenVINOExecutionProvider"
  Pairs device;          // metadata that the device must have: {"ov_device", "CPU"}
  Pairs options;         // the provider's own
};

// Opens ONNX Runtime, and the plugin's library at the first call. Throws Error{configuration}: the library
// cannot be opened, is none for this ONNX Runtime, or offers no such device on this machine.
void check_plugin(const Plugin& plugin);

struct OpSet;

// Runs the graph with ONNX Runtime's CUDA provider, and no part of it anywhere else.
struct CudaOptions {
  int device = 0;
  void* stream = nullptr;  // a CUstream of the device's primary context; every run is enqueued on it
  std::shared_ptr<const void> owner;  // of the stream; the session keeps it
  std::function<bool()> is_lost;      // asked when the session ends: whether the device's context is dead
  std::vector<std::pair<std::string, std::string>> provider;  // further options of the provider
};

// Whether the runs of a session can be captured as CUDA graphs.
struct GraphCapture {
  bool is_on = false;
  std::string reason;  // why not, where that was asked for
};

struct SessionOptions {
  std::string label;  // stands in error messages: "unet/model.onnx"
  int threads = 0;    // intra-op threads; 0 = one per usable CPU (affinity and cgroup quota respected)
  int optimization_level = 99;                              // 0 none, 1 basic, 2 extended, 99 all
  std::vector<std::pair<std::string, std::string>> config;  // session config entries, key -> value
  std::optional<Plugin> plugin;      // takes the whole graph; without one, ORT's CPU provider
  std::optional<CudaOptions> cuda;   // empty: the CPU
  std::shared_ptr<const OpSet> ops;  // null: those of set_custom_ops()
  // Asks for CUDA graphs (Binding::replay). A graph that cannot be captured is loaded without them.
  bool captures_graphs = false;
  // Whether ORT lays the memory of a shape out at its first run, as one block that it keeps beside that of
  // the first: nodes of the later runs need no search in the arena.
  bool memory_pattern = true;
  std::shared_ptr<OpContext> context = nullptr;  // for the operators of ours
};

class Session {
 public:
  // Throws Error: model_not_found (no such file), model_format (unreadable or invalid graph),
  // model_unsupported (unknown op or version), out_of_memory, configuration (no ONNX Runtime installed, an
  // impossible option, a plugin that check_plugin refuses, a CUDA provider that is not there),
  // forked_process. ORT's own text goes into details["cause"].
  static std::shared_ptr<Session> from_file(const std::string& path, const SessionOptions& options);
  static std::shared_ptr<Session> from_memory(const void* data, size_t bytes, const SessionOptions& options);

  virtual ~Session() = default;
  virtual const std::vector<TensorInfo>& inputs() const = 0;
  virtual const std::vector<TensorInfo>& outputs() const = 0;
  virtual const std::string& label() const = 0;
  virtual const CudaOptions* cuda() const = 0;  // null on the CPU
  virtual const GraphCapture& graph_capture() const = 0;
};

// "float32", "string", ...: also for the types that DType leaves out.
std::string onnx_type_name(int onnx_type);

// The input or output of that name; throws Error{invalid_request} with the names that there are. `kind` is
// the word for it in the message, `label` the session's.
const TensorInfo& find_info(const std::vector<TensorInfo>& infos, const std::string& name, const char* kind,
                            const std::string& label);

// Stops the runs that it is given to, from any thread, at the next node of the graph.
class RunControl {
 public:
  // Asynchronous runs on a GPU are only enqueued; on the CPU there is no difference.
  explicit RunControl(bool is_asynchronous = false);
  ~RunControl();
  RunControl(const RunControl&) = delete;
  RunControl& operator=(const RunControl&) = delete;
  void terminate();  // sticky until reset()
  void reset();
  bool is_terminated() const;

 private:
  friend class Binding;
  struct State;
  std::unique_ptr<State> state_;
};

// Where bound memory lies: the host's, or that of the session's device (the host's own on the CPU).
enum class Memory { kHost, kDevice };

// Inputs and outputs bound to buffers once and run many times; one thread at a time per Binding, any number
// of Bindings per Session. run() makes no allocation of ours.
class Binding {
 public:
  explicit Binding(std::shared_ptr<Session> session);
  ~Binding();
  Binding(Binding&&) noexcept;
  Binding& operator=(Binding&&) noexcept;

  // The memory stays the caller's and must outlive the binding. Throws invalid_request on an unknown name, a
  // dtype that is not the graph's or a size that the graph fixes otherwise, naming found and allowed.
  void input(const std::string& name, const TensorView& tensor, Memory memory = Memory::kHost);
  void output(const std::string& name, const TensorView& tensor, Memory memory = Memory::kHost);

  // Lets ORT allocate this output on the CPU; read it with fetch() after run().
  void output_allocated(const std::string& name);

  // Throws execution_failed (label, ORT's text), out_of_memory, invalid_request (something is not bound), or
  // cancelled when `control` was terminated; a run that had already passed its last node when terminated ends
  // normally.
  void run(RunControl* control = nullptr);

  // run(), but only enqueued; and where the session captures graphs, as the CUDA graph of this binding, which
  // the first call captures. ORT keeps a graph for the thread that captured it, so all calls come from one,
  // and it remembers the addresses: nothing may be bound anew. `control` is looked at before the run alone.
  void replay(RunControl* control);

  // View of an output_allocated() result; valid until the next run() or the end of the binding.
  TensorView fetch(const std::string& name);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace textopia::ort
