// The loop: Denoiser and sample(). The GIL is released for the whole run; only a callback that somebody asked
// for, and Ctrl-C, take it back.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "binding/arrays.h"
#include "binding/bind.h"
#include "binding/dlpack.h"
#include "engine/interrupt.h"
#include "engine/loop.h"

namespace py = pybind11;

namespace textopia::binding {
namespace {

using namespace engine;
using Latents = py::array_t<float, py::array::c_style>;
using Start = std::variant<std::shared_ptr<DeviceArray>, Latents>;

// Longer than any run; the clock counts nanoseconds and overflows after 292 years.
constexpr double kLongestTimeout = 1e9;

std::string name_of_input(const py::handle& key) {
  try {
    return key.cast<std::string>();
  } catch (const py::cast_error&) {
    throw Error(code::kInvalidRequest, text("conditioning: the name of an input is ",
                                            std::string(py::repr(key)), ", allowed are strings"));
  }
}

// The graph's type of that input; any will do for one that it does not have, which the engine reports.
DType type_of_input(const Denoiser& denoiser, const std::string& name) {
  for (const ort::TensorInfo& info : denoiser.conditioning())
    if (info.name == name) return info.dtype;
  return DType::kFloat32;
}

// Whether the rows of that input can be copied from where they are on the denoiser's GPU.
bool takes_device_rows(const Denoiser& denoiser, const std::string& name) {
  const auto& graph = denoiser.prompt_graph();
  return !graph || std::none_of(graph->inputs().begin(), graph->inputs().end(),
                                [&](const auto& info) { return info.name == name; });
}

// An array on the denoiser's GPU. Throws invalid_request where it is on another, or the loop on the CPU.
void check_device(const Denoiser& denoiser, const DeviceArray& array, const std::string& where) {
  const auto& gpu = denoiser.gpu();
  check(gpu && gpu->device()->ordinal() == array.gpu()->device()->ordinal(), code::kInvalidRequest, where,
        ": an array on ", array.gpu()->device()->label(), "; the loop runs on ",
        gpu ? gpu->device()->label() : "the CPU");
}

// `kept` owns what the result shows: the caller's dicts may change while the GIL is released.
std::vector<Conditioning> conditioning_of(const Denoiser& denoiser, const py::dict& positive,
                                          const py::dict& negative, std::vector<py::object>& kept) {
  const auto view = [&](const std::string& name, const py::handle& value, bool& is_on_device) {
    const std::string where = text("conditioning \"", name, "\"");
    if (py::isinstance<DeviceArray>(value)) {
      const auto& array = value.cast<const DeviceArray&>();
      check_device(denoiser, array, where);
      is_on_device = takes_device_rows(denoiser, name) && !array.shape().empty();
      if (is_on_device) {
        kept.push_back(py::reinterpret_borrow<py::object>(value));
        return TensorView{reinterpret_cast<void*>(array.data()), array.dtype(), array.shape()};
      }
    }
    const bool is_array = py::isinstance<DeviceArray>(value);
    kept.push_back(as_contiguous(is_array ? value.attr("numpy")() : value, where));
    return view_of(py::reinterpret_borrow<py::array>(kept.back()), type_of_input(denoiser, name), where);
  };
  std::vector<Conditioning> conditioning;
  for (const auto& [key, value] : positive) {
    Conditioning item;
    item.name = name_of_input(key);
    item.positive = view(item.name, value, item.is_positive_on_device);
    if (negative.contains(key)) item.negative = view(item.name, negative[key], item.is_negative_on_device);
    conditioning.push_back(std::move(item));
  }
  for (const auto& [key, value] : negative)
    check(positive.contains(key), code::kInvalidRequest, "conditioning \"", name_of_input(key),
          "\" has a negative half and no positive one");
  return conditioning;
}

py::array copy_of(const float* values, const Shape& shape) {
  return copy_to_array({const_cast<float*>(values), DType::kFloat32, shape});
}

// Wraps a Python callable `on_step(step, latents, denoised | None)`. It gets copies, so that nothing it keeps
// can dangle; a returned array replaces the latents.
StepCallback wrap_callback(const py::function& callback, const Shape& shape) {
  return [&callback, &shape](int step, float* latents, const float* denoised) {
    py::gil_scoped_acquire gil;
    const py::object given = denoised ? py::object(copy_of(denoised, shape)) : py::none();
    const py::object result = callback(step, copy_of(latents, shape), given);
    if (result.is_none()) return;
    const auto replaced = Latents::ensure(result);
    check(replaced && shape_of(replaced) == shape, code::kInvalidRequest,
          "callback: the returned latents must be a float32 array of shape ", to_string(shape));
    std::memcpy(latents, replaced.data(), static_cast<size_t>(replaced.nbytes()));
  };
}

Latents latents_of(const py::handle& value, const Shape& shape, const char* name) {
  Latents array = Latents::ensure(value);
  check(array && shape_of(array) == shape, code::kInvalidRequest, "callback: ", name,
        " must be a float32 array of shape ", to_string(shape));
  return array;
}

// Wraps a Python callable `on_evaluation(evaluation, latents) -> None | dict` whose entries say what changes:
// "latents", "mask" (of their shape), "guidance", "cond" and "uncond" (dicts).
EvaluationCallback wrap_callback(const py::function& callback, const Denoiser& denoiser, const Shape& shape) {
  return [&callback, &denoiser, &shape](int evaluation, float* latents, Steering& steering) {
    py::gil_scoped_acquire gil;
    const py::object result = callback(evaluation, copy_of(latents, shape));
    if (result.is_none()) return;
    const auto changes = result.cast<py::dict>();
    const auto entry = [&](const char* name) {
      return changes.contains(name) ? py::dict(changes[name]) : py::dict();
    };
    if (changes.contains("latents")) {
      const Latents replaced = latents_of(changes["latents"], shape, "latents");
      std::memcpy(latents, replaced.data(), static_cast<size_t>(replaced.nbytes()));
    }
    if (changes.contains("mask")) steering.set_mask(latents_of(changes["mask"], shape, "mask").data());
    std::vector<py::object> kept;
    for (const Conditioning& item : conditioning_of(denoiser, entry("cond"), entry("uncond"), kept))
      steering.set_conditioning(item);
    if (changes.contains("guidance")) steering.set_guidance(changes["guidance"].cast<double>());
  };
}

// The values of an optional array of x's shape, or null.
const float* latents_like(const Shape& shape, const std::optional<Latents>& array, const char* name) {
  if (!array) return nullptr;
  check(shape_of(*array) == shape, code::kInvalidRequest, name, ": got the shape ",
        to_string(shape_of(*array)), "; that of x, ", to_string(shape), ", is allowed");
  return array->data();
}

// The start of a request, and what its sample is written to.
struct Placed {
  py::object sample;
  std::optional<Latents> start;  // a copy of the caller's
};

Placed place(const Denoiser& denoiser, const Start& x, bool on_device, SampleRequest& request) {
  Placed placed;
  if (const auto* array = std::get_if<std::shared_ptr<DeviceArray>>(&x)) {
    check_device(denoiser, **array, "x");
    check((*array)->dtype() == DType::kFloat32, code::kInternal, "x: a start of another type than float32");
    request.shape = (*array)->shape();
    request.device_start = (*array)->data();
    if (!on_device) placed.start = Latents(make_array(DType::kFloat32, request.shape));
  } else {
    const Latents& values = std::get<Latents>(x);
    request.shape = shape_of(values);
    placed.start = Latents(copy_of(values.data(), request.shape));
  }
  if (placed.start) request.latents = placed.start->mutable_data();
  if (!on_device) {
    placed.sample = *placed.start;
    return placed;
  }
  check(denoiser.gpu() != nullptr, code::kInvalidRequest, "on_device: the loop runs on the CPU");
  std::shared_ptr<DeviceArray> sample;
  {
    py::gil_scoped_release no_gil;
    sample = std::make_shared<DeviceArray>(denoiser.gpu(), DType::kFloat32, request.shape);
  }
  request.device_sample = sample->data();
  placed.sample = py::cast(sample);
  return placed;
}

py::object run_sample(const Denoiser& denoiser, const Program& program, const Start& x, const py::dict& cond,
                      const py::dict& uncond, std::vector<double> guidance, rng::NoiseStream* noise,
                      std::optional<Latents> known, std::optional<Latents> mask,
                      std::optional<Latents> known_noise, CancelToken* cancel, std::optional<double> timeout,
                      Progress* progress, std::optional<py::function> on_step, bool wants_denoised,
                      std::optional<py::function> on_evaluation, bool on_device,
                      std::optional<std::string> isa) {
  SampleRequest request;
  const Placed placed = place(denoiser, x, on_device, request);
  request.program = &program;
  std::vector<py::object> kept;
  request.conditioning = conditioning_of(denoiser, cond, uncond, kept);
  request.guidance = std::move(guidance);
  request.noise = noise;
  request.inpainting = {latents_like(request.shape, known, "known"),
                        latents_like(request.shape, mask, "mask"),
                        latents_like(request.shape, known_noise, "known_noise")};
  request.limits.cancel = cancel;
  if (timeout) {
    check(std::isfinite(*timeout), code::kInvalidRequest, "deadline: got ", *timeout, "; it must be finite");
    const std::chrono::duration<double> seconds(std::clamp(*timeout, 0.0, kLongestTimeout));
    request.limits.deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(seconds);
  }
  request.progress = progress;
  if (on_step) request.on_step = wrap_callback(*on_step, request.shape);
  request.wants_denoised = wants_denoised;
  if (on_evaluation) request.on_evaluation = wrap_callback(*on_evaluation, denoiser, request.shape);
  request.combine = cpu::combine_kernel(isa ? isa_named(*isa) : active_isa());

  const InterruptGuard interrupt;
  request.limits.interrupt = interrupt.flag();
  request.limits.on_interrupt = [] {
    py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  };
  {
    std::optional<rng::NoiseLease> lease;
    if (noise) lease.emplace(*noise);
    py::gil_scoped_release nogil;
    sample(denoiser, request);
  }
  return placed.sample;
}

}  // namespace

void register_engine(py::module_& module) {
  register_program(module);

  py::class_<Denoiser, std::shared_ptr<Denoiser>>(module, "Denoiser", "A graph and the roles of its tensors.")
      .def(py::init([](std::shared_ptr<ort::Session> session, std::string sample, std::string noise_level,
                       std::string output, int images_per_run, std::shared_ptr<Gpu> gpu, bool shares_prefix,
                       std::shared_ptr<ort::Session> time_graph, std::shared_ptr<ort::Session> prompt_graph,
                       std::shared_ptr<ort::Session> ends_graph) {
             return std::make_shared<Denoiser>(
                 std::move(session),
                 DenoiserOptions{std::move(sample), std::move(noise_level), std::move(output), images_per_run,
                                 shares_prefix},
                 std::move(gpu),
                 HoistedGraphs{std::move(time_graph), std::move(prompt_graph), std::move(ends_graph)});
           }),
           py::arg("session").none(false), py::kw_only(), py::arg("sample"), py::arg("noise_level"),
           py::arg("output"), py::arg("images_per_run") = 0, py::arg("gpu") = nullptr,
           py::arg("shares_prefix") = false, py::arg("time_graph") = nullptr,
           py::arg("prompt_graph") = nullptr, py::arg("ends_graph") = nullptr)
      .def_property_readonly("conditioning", &Denoiser::conditioning,
                             "What `sample` is given, a TensorInfo each.");

  module.def(
      "sample", &run_sample, py::arg("denoiser"), py::arg("program"), py::arg("x"), py::kw_only(),
      py::arg("cond") = py::dict(), py::arg("uncond") = py::dict(),
      py::arg("guidance") = std::vector<double>{1.0}, py::arg("noise") = nullptr,
      py::arg("known") = std::nullopt, py::arg("mask") = std::nullopt, py::arg("known_noise") = std::nullopt,
      py::arg("cancel") = nullptr, py::arg("timeout") = std::nullopt, py::arg("progress") = nullptr,
      py::arg("on_step") = std::nullopt, py::arg("wants_denoised") = false,
      py::arg("on_evaluation") = std::nullopt, py::arg("on_device") = false, py::arg("isa") = std::nullopt,
      "Runs a program against a denoiser. x: float32 [B, ...], not changed; returns float32 [B, ...], with "
      "`on_device` as a DeviceArray.");
}

}  // namespace textopia::binding
