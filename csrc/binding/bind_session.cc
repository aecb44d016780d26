// Sessions, bindings and run controls of ONNX Runtime for Python.
#include <pybind11/stl/filesystem.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/threads.h"
#include "binding/arrays.h"
#include "engine/gpu.h"
#include "engine/request.h"
#include "ops/ops.h"
#include "ort/runtime.h"
#include "ort/session.h"

namespace py = pybind11;

namespace textopia::binding {
namespace {

using ort::Binding;
using ort::RunControl;
using ort::Session;
using ort::TensorInfo;
using Config = std::map<std::string, std::string>;
using Plans = std::shared_ptr<cpu::PlanSource>;

ort::SessionOptions options_of(const std::string& label, int threads, int level, const Config& config,
                               const ort::Plugin* plugin, const std::shared_ptr<engine::Gpu>& gpu,
                               const Config& cuda_options, bool cuda_graphs, bool memory_pattern,
                               const Plans& plans) {
  ort::SessionOptions options{label, threads, level, {}, {}, {}, {}, gpu != nullptr && cuda_graphs};
  options.memory_pattern = memory_pattern;
  if (plans != nullptr) options.context = std::make_shared<ops::PlanContext>(plans);
  if (plugin != nullptr) options.plugin = *plugin;
  options.config.assign(config.begin(), config.end());
  if (gpu == nullptr) return options;
  options.ops = ops::gpu_ops({gpu, &gpu->kernels(), &gpu->stream()}, gpu->is_emulated());
  if (gpu->is_emulated()) return options;
  options.cuda.emplace();
  options.cuda->device = gpu->device()->ordinal();
  options.cuda->stream = gpu->stream().get();
  options.cuda->owner = gpu;
  options.cuda->is_lost = [device = gpu->device()] { return !device->answers(); };
  options.cuda->provider.assign(cuda_options.begin(), cuda_options.end());
  return options;
}

// Releasing a session joins its threads: not with the GIL, which the last owner may or may not hold.
std::shared_ptr<Session> release_without_gil(std::shared_ptr<Session> session) {
  Session* raw = session.get();
  return std::shared_ptr<Session>(raw, [owner = std::move(session)](Session*) mutable {
    if (Py_IsInitialized() && PyGILState_Check()) {
      py::gil_scoped_release no_gil;
      owner.reset();
    } else {
      owner.reset();
    }
  });
}

py::list sizes_of(const TensorInfo& info) {
  py::list sizes;
  for (size_t i = 0; i < info.shape.size(); ++i) {
    if (info.shape[i] >= 0)
      sizes.append(info.shape[i]);
    else if (!info.symbols[i].empty())
      sizes.append(info.symbols[i]);
    else
      sizes.append(py::none());
  }
  return sizes;
}

// A binding that also keeps the arrays alive whose memory it uses. Threads may share it: they take turns. An
// array that another one replaces goes after the turn, for its end may run Python.
class ArrayBinding {
 public:
  explicit ArrayBinding(std::shared_ptr<Session> session)
      : session_(std::move(session)), binding_(session_) {}

  void input(const std::string& name, const py::handle& object) {
    const TensorInfo& info = ort::find_info(session_->inputs(), name, "input", session_->label());
    const std::string where = text(session_->label(), ": input '", name, "'");
    py::array array = as_contiguous(object, where);
    py::object replaced;
    const auto lock = take_turn();
    py::object& kept = kept_["i:" + name];
    binding_.input(name, view_of(array, info.dtype, where));
    replaced = std::exchange(kept, std::move(array));
  }

  void output(const std::string& name, const py::handle& object) {
    const TensorInfo& info = ort::find_info(session_->outputs(), name, "output", session_->label());
    const std::string where = text(session_->label(), ": output '", name, "'");
    py::array array = as_contiguous(object, where);
    check(array.is(object) && array.writeable(), code::kInvalidRequest, where,
          " is strided, unaligned or read-only, allowed is a writable contiguous array");
    py::object replaced;
    const auto lock = take_turn();
    py::object& kept = kept_["o:" + name];
    binding_.output(name, view_of(array, info.dtype, where));
    replaced = std::exchange(kept, std::move(array));
  }

  void inputs(const py::dict& feeds) {
    for (const auto& [name, array] : feeds) input(py::cast<std::string>(name), array);
  }

  void allocate_outputs() {
    for (const TensorInfo& info : session_->outputs()) binding_.output_allocated(info.name);
  }

  // Gives every output an own array of the size of the last run's result.
  void own_outputs() {
    std::vector<py::array> arrays;
    for (const TensorInfo& info : session_->outputs())
      arrays.push_back(copy_to_array(binding_.fetch(info.name)));
    for (size_t i = 0; i < arrays.size(); ++i) output(session_->outputs()[i].name, arrays[i]);
  }

  py::dict results() {
    py::dict values;
    for (const TensorInfo& info : session_->outputs())
      values[py::str(info.name)] = copy_to_array(binding_.fetch(info.name));
    return values;
  }

  // Seconds of `count` runs, without the GIL.
  double run(RunControl* control, int count = 1) {
    py::gil_scoped_release no_gil;
    std::lock_guard lock(mutex_);
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < count; ++i) binding_.run(control);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

 private:
  // Waiting with the GIL would stop the thread that is waited for.
  std::unique_lock<std::mutex> take_turn() {
    py::gil_scoped_release no_gil;
    return std::unique_lock(mutex_);
  }

  std::shared_ptr<Session> session_;
  std::map<std::string, py::object> kept_;
  Binding binding_;
  std::mutex mutex_;
};

py::dict run(std::shared_ptr<Session> session, const py::dict& feeds, RunControl* control,
             engine::CancelToken* cancel) {
  RunControl own_control;
  if (control == nullptr && cancel != nullptr) control = &own_control;
  const engine::CancelGuard guard(cancel, control);
  ArrayBinding binding(std::move(session));
  binding.inputs(feeds);
  binding.allocate_outputs();
  binding.run(control);
  return binding.results();
}

double run_repeatedly(std::shared_ptr<Session> session, const py::dict& feeds, int count,
                      RunControl* control) {
  check(count >= 1, code::kInvalidRequest, session->label(), ": count = ", count, ", allowed are 1 and more");
  ArrayBinding binding(std::move(session));
  binding.inputs(feeds);
  binding.allocate_outputs();
  binding.run(control);
  binding.own_outputs();
  return binding.run(control, count);
}

py::dict ort_info() {
  const ort::RuntimeInfo* info = nullptr;
  {
    py::gil_scoped_release no_gil;
    info = &ort::runtime_info();
  }
  py::dict facts;
  facts["path"] = info->path;
  facts["version"] = info->version;
  facts["api_version"] = info->api_version;
  facts["providers"] = info->providers;
  return facts;
}

std::shared_ptr<Session> from_file(const std::filesystem::path& path, const std::string& label, int threads,
                                   int level, const Config& config, const ort::Plugin* plugin,
                                   const std::shared_ptr<engine::Gpu>& gpu, const Config& cuda_options,
                                   bool cuda_graphs, bool memory_pattern, const Plans& plans) {
  py::gil_scoped_release no_gil;
  const std::string file = path.string();
  return release_without_gil(
      Session::from_file(file, options_of(label.empty() ? file : label, threads, level, config, plugin, gpu,
                                          cuda_options, cuda_graphs, memory_pattern, plans)));
}

std::shared_ptr<Session> from_memory(const py::bytes& model, const std::string& label, int threads, int level,
                                     const Config& config, const ort::Plugin* plugin,
                                     const std::shared_ptr<engine::Gpu>& gpu, const Config& cuda_options,
                                     bool cuda_graphs, bool memory_pattern, const Plans& plans) {
  const std::string_view bytes = model;
  py::gil_scoped_release no_gil;
  return release_without_gil(
      Session::from_memory(bytes.data(), bytes.size(),
                           options_of(label, threads, level, config, plugin, gpu, cuda_options, cuda_graphs,
                                      memory_pattern, plans)));
}

void register_info(py::module_& module) {
  py::class_<TensorInfo>(module, "TensorInfo", "One input or output of a graph.")
      .def_readonly("name", &TensorInfo::name)
      .def_property_readonly("dtype",
                             [](const TensorInfo& info) { return ort::onnx_type_name(info.onnx_type); })
      .def_property_readonly("shape", sizes_of,
                             "list of int, the name of a free size, or None where it has no name")
      .def("__repr__", [](const TensorInfo& info) {
        return text("TensorInfo(", info.name, ": ", ort::onnx_type_name(info.onnx_type), " ",
                    std::string(py::str(sizes_of(info))), ")");
      });
}

void register_control(py::module_& module) {
  py::class_<RunControl>(module, "RunControl", "Stops the runs that it is given to, from any thread.")
      .def(py::init<>())
      .def("terminate", &RunControl::terminate, "Sticky until reset().")
      .def("reset", &RunControl::reset)
      .def_property_readonly("is_terminated", &RunControl::is_terminated);
}

void register_plugin(py::module_& module) {
  const auto pairs = [](const Config& entries) { return ort::Plugin::Pairs(entries.begin(), entries.end()); };
  py::class_<ort::Plugin>(module, "Plugin", "An execution provider in a library of its own.")
      .def(py::init([pairs](const std::string& library, const std::string& provider, const Config& device,
                            const Config& options) {
             return ort::Plugin{library, provider, pairs(device), pairs(options)};
           }),
           py::kw_only(), py::arg("library"), py::arg("provider"), py::arg("device"), py::arg("options"))
      .def("check", &ort::check_plugin, py::call_guard<py::gil_scoped_release>(),
           "Raises ConfigurationError where it cannot be opened or has no such device.");
}

void register_binding(py::module_& module) {
  py::class_<ArrayBinding>(module, "Binding", "Arrays bound to a session once and run many times.")
      .def(py::init<std::shared_ptr<Session>>(), py::arg("session").none(false))
      .def("input", &ArrayBinding::input, py::arg("name"), py::arg("array"),
           "Strided arrays are copied; others are read at each run().")
      .def("output", &ArrayBinding::output, py::arg("name"), py::arg("array"), "Written by each run().")
      .def(
          "run", [](ArrayBinding& binding, RunControl* control) { binding.run(control); },
          py::arg("control") = nullptr);
}

}  // namespace

void register_session(py::module_& module) {
  register_info(module);
  register_control(module);
  register_plugin(module);
  py::class_<Session, std::shared_ptr<Session>>(module, "Session", "A loaded ONNX graph.")
      .def_static("from_file", from_file, py::arg("path"), py::kw_only(), py::arg("label") = "",
                  py::arg("threads") = 0, py::arg("optimization_level") = 99, py::arg("config") = Config(),
                  py::arg("plugin").none(true) = nullptr, py::arg("gpu") = nullptr,
                  py::arg("cuda_options") = Config(), py::arg("cuda_graphs") = false,
                  py::arg("memory_pattern") = true, py::arg("plans").none(true) = nullptr)
      .def_static("from_memory", from_memory, py::arg("model"), py::kw_only(), py::arg("label") = "graph",
                  py::arg("threads") = 0, py::arg("optimization_level") = 99, py::arg("config") = Config(),
                  py::arg("plugin").none(true) = nullptr, py::arg("gpu") = nullptr,
                  py::arg("cuda_options") = Config(), py::arg("cuda_graphs") = false,
                  py::arg("memory_pattern") = true, py::arg("plans").none(true) = nullptr)
      .def_property_readonly("cuda_device",
                             [](const Session& session) -> std::optional<int> {
                               if (session.cuda() == nullptr) return std::nullopt;
                               return session.cuda()->device;
                             })
      .def_property_readonly(
          "cuda_graphs",
          [](const Session& session) {
            const ort::GraphCapture& capture = session.graph_capture();
            const std::string why = capture.reason.empty() ? "" : ": " + capture.reason;
            return decode(capture.is_on ? "on" : "off" + why);
          },
          "on, off, or \"off: \" and why it cannot be captured.")
      .def_property_readonly("label", [](const Session& session) { return decode(session.label()); })
      .def_property_readonly("inputs", &Session::inputs)
      .def_property_readonly("outputs", &Session::outputs)
      .def("run", run, py::arg("feeds"), py::kw_only(), py::arg("control") = nullptr,
           py::arg("cancel") = nullptr,
           "All outputs by name, as new arrays. bfloat16 crosses as uint16 bits. cancel ends the run, and "
           "terminates `control` too.")
      .def("run_repeatedly", run_repeatedly, py::arg("feeds"), py::arg("count"), py::kw_only(),
           py::arg("control") = nullptr, "Seconds of `count` runs over buffers that are bound once.");
  register_binding(module);
  module.def("set_ort_candidates", &ort::set_library_candidates, py::arg("paths"));
  module.def("ort_info", ort_info);
  module.def("usable_cpus", &usable_cpus);
  module.def("cgroup_cpu_limit", &cgroup_cpu_limit, py::arg("proc_cgroup"), py::arg("mount"));
}

}  // namespace textopia::binding
