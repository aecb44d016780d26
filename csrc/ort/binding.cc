// Buffers bound to a session's border, and the runs over them.
#include <algorithm>
#include <optional>
#include <string_view>

#include "ort/custom_op_domain.h"
#include "ort/run_control.h"
#include "ort/session_impl.h"

namespace textopia::ort {
namespace {

// The graph's shape with the names of its free sizes: "[batch,4,64,?]".
std::string declared_shape(const TensorInfo& info) {
  std::string text = "[";
  for (size_t i = 0; i < info.shape.size(); ++i) {
    if (i > 0) text += ",";
    text += info.shape[i] >= 0        ? std::to_string(info.shape[i])
            : info.symbols[i].empty() ? "?"
                                      : info.symbols[i];
  }
  return text + "]";
}

bool has_free_size(const TensorInfo& info) {
  return std::any_of(info.shape.begin(), info.shape.end(), [](int64_t size) { return size < 0; });
}

bool fits(const TensorInfo& info, const Shape& shape) {
  // A graph that states no rank looks like a scalar's; ORT itself judges those.
  if (info.shape.empty()) return true;
  if (info.shape.size() != shape.size()) return false;
  for (size_t i = 0; i < shape.size(); ++i)
    if (info.shape[i] >= 0 && info.shape[i] != shape[i]) return false;
  return true;
}

// In the life of a session: ORT 1.31 keeps what is released until the session ends. Runs of later bindings
// are not captured.
constexpr int kMostGraphs = 64;

// For tensors without elements: ORT wants an address all the same.
char g_nothing = 0;

}  // namespace

struct Binding::State {
  struct Slot {
    ValueHandle value;  // null for an allocated output
    bool is_bound = false;
    bool is_allocated = false;     // by ORT, output only
    bool is_read_by_host = false;  // input of a session on a GPU
    size_t order = 0;              // outputs: position in ORT's list
  };

  std::shared_ptr<Session> owner;
  const SessionImpl* session = nullptr;
  const Runtime* library = nullptr;
  std::vector<Slot> inputs;
  std::vector<Slot> outputs;
  size_t unbound_inputs = 0;
  size_t bound_outputs = 0;
  bool has_run = false;
  bool has_results = false;  // of the present bindings: what fetch() may read
  bool captures = false;     // the session captures graphs
  int graph = kNoGraph;      // the number of this binding's, once it has one
  bool has_asked_for_graph = false;
  RunOptionsHandle run_options, graph_options;
  std::vector<ValueHandle> fetched;  // keeps what fetch() showed alive
  IoBindingHandle binding;

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  // A graph that was captured by another thread, or not yet, is not found, which is no harm.
  ~State() {
    if (graph == kNoGraph || is_forked_child() || session->is_lost()) return;
    const auto& release = library->api.SessionReleaseCapturedGraph;
    abi::Status* status = release.is_bound() ? release(session->raw(), graph) : nullptr;
    if (status != nullptr) library->api.ReleaseStatus(status);
  }

  void run(RunControl* control, const abi::RunOptions* chosen);

  const std::string& label() const { return session->label(); }

  const TensorInfo& named(const std::vector<TensorInfo>& infos, const char* kind, const std::string& name,
                          size_t* index) const {
    const TensorInfo& info = find_info(infos, name, kind, label());
    *index = static_cast<size_t>(&info - infos.data());
    return info;
  }

  ValueHandle wrap(const TensorInfo& info, const char* kind, const TensorView& tensor, Memory memory) const {
    auto require = [&](bool condition, const std::string& what) {
      if (!condition)
        throw Error(code::kInvalidRequest, text(label(), ": ", kind, " '", info.name, "' ", what),
                    {{"component", label()}, {"param", info.name}});
    };
    require(size_of(info.dtype) > 0,
            "has the type " + onnx_type_name(info.onnx_type) + ", which cannot be bound");
    require(tensor.dtype == info.dtype,
            text("has dtype ", name_of(tensor.dtype), ", allowed is ", name_of(info.dtype)));
    const bool is_negative =
        std::any_of(tensor.shape.begin(), tensor.shape.end(), [](int64_t size) { return size < 0; });
    require(!is_negative && fits(info, tensor.shape),
            "has shape " + textopia::to_string(tensor.shape) + ", allowed is " + declared_shape(info));
    const size_t bytes = tensor.bytes();
    require(bytes == 0 || tensor.data != nullptr, "has no memory");
    abi::Value* raw = nullptr;
    check_status(library->api,
                 library->api.CreateTensorWithDataAsOrtValue(
                     session->memory(memory), bytes == 0 ? &g_nothing : tensor.data, bytes,
                     tensor.shape.data(), tensor.shape.size(), static_cast<int>(tensor.dtype), &raw),
                 Activity::kRun, label(), "a tensor cannot be bound");
    return ValueHandle(raw);
  }

  void mark_output(Slot& slot) {
    if (!slot.is_bound) slot.order = bound_outputs++;
    slot.is_bound = true;
    has_results = false;
  }

  void bind_allocated(const std::string& name) const {
    check_status(library->api,
                 library->api.BindOutputToDevice(binding.get(), name.c_str(), library->cpu_memory),
                 Activity::kRun, label(), "an output cannot be bound");
  }

  void bind_input(size_t index, const abi::Value* value) const {
    const std::string& name = session->inputs()[index].name;
    check_status(library->api, library->api.BindInput(binding.get(), name.c_str(), value), Activity::kRun,
                 label(), "an input cannot be bound");
  }

  // For a plugin's device ORT copies an input when it is bound, even from CPU to CPU, and for a GPU one that
  // a node on the CPU reads: without this a run would not see what was written since.
  void refresh_inputs() const {
    for (size_t i = 0; i < inputs.size(); ++i)
      if (session->has_plugin() || inputs[i].is_read_by_host) bind_input(i, inputs[i].value.get());
  }

  void find_inputs_of_host() {
    if (session->cuda() == nullptr || inputs.empty()) return;
    std::vector<const abi::MemoryInfo*> memory(inputs.size());
    check_status(library->api,
                 library->api.SessionGetMemoryInfoForInputs(session->raw(), memory.data(), memory.size()),
                 Activity::kOther, label(), "the places of its inputs cannot be read");
    for (size_t i = 0; i < inputs.size(); ++i) {
      int device = abi::kCpuDevice;
      library->api.MemoryInfoGetDeviceType(memory[i], &device);
      inputs[i].is_read_by_host = device == abi::kCpuDevice;
    }
  }

  // ORT keeps the tensor that it allocated and would demand its shape of the next run.
  void forget_allocated() const {
    for (size_t i = 0; i < outputs.size(); ++i)
      if (outputs[i].is_allocated && has_free_size(session->outputs()[i]))
        bind_allocated(session->outputs()[i].name);
  }

  [[noreturn]] void throw_incomplete() const {
    if (bound_outputs == 0)
      throw Error(code::kInvalidRequest,
                  text(label(), ": no output is bound, allowed are ", names_of(session->outputs())),
                  {{"component", label()}});
    std::vector<TensorInfo> missing;
    for (size_t i = 0; i < inputs.size(); ++i)
      if (!inputs[i].is_bound) missing.push_back(session->inputs()[i]);
    throw Error(code::kInvalidRequest, text(label(), ": missing inputs: ", names_of(missing)),
                {{"component", label()}, {"param", missing.front().name}});
  }

  // What is wrong with the device, not with the graph, keeps its kind.
  void throw_if_device_failed(abi::Status* status) const {
    const std::optional<Error> failure = take_op_failure();
    if (!failure) return;
    const std::string_view kind = failure->code();
    if (kind != code::kDeviceLost && kind != code::kOutOfMemory && kind != code::kForkedProcess) return;
    library->api.ReleaseStatus(status);
    throw Error(failure->code(), text(label(), ": ", failure->what()), failure->details());
  }

  [[noreturn]] void throw_cancelled(const std::string& cause) const {
    throw Error(code::kCancelled, text(label(), ": the run was cancelled"),
                {{"stage", label()}, {"cause", cause}});
  }
};

Binding::Binding(std::shared_ptr<Session> session) : state_(std::make_unique<State>()) {
  State& state = *state_;
  state.session = dynamic_cast<const SessionImpl*>(session.get());
  check(state.session != nullptr, code::kInternal, "binding: not a session of ONNX Runtime");
  state.owner = std::move(session);
  state.library = &state.session->library();
  check_not_forked(state.label());
  state.inputs.resize(state.session->inputs().size());
  state.outputs.resize(state.session->outputs().size());
  state.unbound_inputs = state.inputs.size();
  state.find_inputs_of_host();
  state.captures = state.session->graph_capture().is_on;
  state.run_options =
      make_run_options(*state.library, false, state.captures ? std::optional(kNoGraph) : std::nullopt);
  abi::IoBinding* raw = nullptr;
  check_status(state.library->api, state.library->api.CreateIoBinding(state.session->raw(), &raw),
               Activity::kOther, state.label(), "a binding cannot be made");
  state.binding.reset(raw);
}

Binding::~Binding() = default;
Binding::Binding(Binding&&) noexcept = default;
Binding& Binding::operator=(Binding&&) noexcept = default;

void Binding::input(const std::string& name, const TensorView& tensor, Memory memory) {
  State& state = *state_;
  check_not_forked(state.label());
  size_t index = 0;
  const TensorInfo& info = state.named(state.session->inputs(), "input", name, &index);
  ValueHandle value = state.wrap(info, "input", tensor, memory);
  state.bind_input(index, value.get());
  State::Slot& slot = state.inputs[index];
  if (!slot.is_bound) --state.unbound_inputs;
  slot.is_bound = true;
  slot.value = std::move(value);
}

void Binding::output(const std::string& name, const TensorView& tensor, Memory memory) {
  State& state = *state_;
  check_not_forked(state.label());
  size_t index = 0;
  const TensorInfo& info = state.named(state.session->outputs(), "output", name, &index);
  ValueHandle value = state.wrap(info, "output", tensor, memory);
  const abi::Api& api = state.library->api;
  check_status(api, api.BindOutput(state.binding.get(), name.c_str(), value.get()), Activity::kRun,
               state.label(), "an output cannot be bound");
  State::Slot& slot = state.outputs[index];
  state.mark_output(slot);
  slot.is_allocated = false;
  slot.value = std::move(value);
}

void Binding::output_allocated(const std::string& name) {
  State& state = *state_;
  check_not_forked(state.label());
  size_t index = 0;
  const TensorInfo& info = state.named(state.session->outputs(), "output", name, &index);
  check(size_of(info.dtype) > 0, code::kModelUnsupported, state.label(), ": output '", name,
        "' has the type ", onnx_type_name(info.onnx_type), ", which cannot be read");
  state.bind_allocated(name);
  State::Slot& slot = state.outputs[index];
  state.mark_output(slot);
  slot.is_allocated = true;
  slot.value.reset();
}

void Binding::run(RunControl* control) {
  State& state = *state_;
  const bool is_synchronous = control == nullptr || !control->state_->is_asynchronous;
  state.run(control, state.captures && is_synchronous ? state.run_options.get() : nullptr);
}

void Binding::replay(RunControl* control) {
  State& state = *state_;
  if (state.captures && !state.has_asked_for_graph) {
    state.has_asked_for_graph = true;
    const int graph = state.session->next_graph_id();
    if (graph <= kMostGraphs) {
      state.graph = graph;
      state.graph_options = make_run_options(*state.library, true, graph);
    }
  }
  state.run(control, state.graph_options.get());
}

// `chosen`: null for those of the control, or the binding's own where there is none.
void Binding::State::run(RunControl* control, const abi::RunOptions* chosen) {
  if (unbound_inputs > 0 || bound_outputs == 0) [[unlikely]]
    throw_incomplete();
  check_not_forked(label());
  const abi::RunOptions* options = chosen != nullptr ? chosen : run_options.get();
  const uint64_t terminations = control != nullptr ? control->state_->termination_count.load() : 0;
  if (control != nullptr) {
    if (control->is_terminated()) throw_cancelled("terminated before the run");
    if (chosen == nullptr) options = control->state_->get(*library);
  }
  has_results = false;
  fetched.clear();
  refresh_inputs();
  if (has_run) forget_allocated();
  has_run = true;
  const abi::Api& api = library->api;
  take_op_failure();  // of something else
  abi::Status* status = api.RunWithBinding(session->raw(), options, binding.get());
  if (status == nullptr) [[likely]] {
    has_results = true;
    return;
  }
  // ORT says "terminated" with its unspecific code: our own count is the surer sign.
  if (control != nullptr &&
      (control->is_terminated() || control->state_->termination_count.load() != terminations)) {
    const char* message = api.GetErrorMessage(status);
    const std::string cause = message != nullptr ? message : "";
    api.ReleaseStatus(status);
    throw_cancelled(cause);
  }
  throw_if_device_failed(status);
  throw_status(api, status, Activity::kRun, label(), "the graph failed");
}

TensorView Binding::fetch(const std::string& name) {
  State& state = *state_;
  check_not_forked(state.label());
  size_t index = 0;
  const TensorInfo& info = state.named(state.session->outputs(), "output", name, &index);
  const State::Slot& slot = state.outputs[index];
  check(slot.is_allocated && state.has_results, code::kInvalidRequest, state.label(), ": output '", name,
        "' was not allocated by a run of this binding");
  const abi::Api& api = state.library->api;
  auto checked = [&](abi::Status* status) {
    check_status(api, status, Activity::kRun, state.label(), "an output cannot be read");
  };
  if (state.fetched.empty()) {
    abi::Value** values = nullptr;
    size_t count = 0;
    checked(api.GetBoundOutputValues(state.binding.get(), state.library->allocator, &values, &count));
    for (size_t i = 0; i < count; ++i) state.fetched.emplace_back(values[i]);
    checked(api.AllocatorFree(state.library->allocator, values));
  }
  check(slot.order < state.fetched.size(), code::kInternal, state.label(), ": output '", name,
        "' is not there");
  abi::Value* value = state.fetched[slot.order].get();
  abi::ShapeInfo* raw = nullptr;
  checked(api.GetTensorTypeAndShape(value, &raw));
  const ShapeInfoHandle shape(raw);
  size_t rank = 0;
  checked(api.GetDimensionsCount(raw, &rank));
  TensorView view{nullptr, info.dtype, Shape(rank)};
  checked(api.GetDimensions(raw, view.shape.data(), rank));
  checked(api.GetTensorMutableData(value, &view.data));
  return view;
}

}  // namespace textopia::ort
