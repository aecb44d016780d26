// The loop: Denoiser, CancelToken, Progress and sample(). The GIL is released for the whole run; only a
// callback that somebody asked for, and Ctrl-C, take it back.
#include <cmath>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "binding/bind.h"
#include "engine/interrupt.h"
#include "engine/loop.h"

namespace py = pybind11;

namespace textopia::binding {
namespace {

using namespace engine;
using Latents = py::array_t<float, py::array::c_style>;

Shape shape_of(const py::array& array) { return Shape(array.shape(), array.shape() + array.ndim()); }

DType dtype_of(const py::array& array, const std::string& name) {
  const py::dtype dtype = array.dtype();
  const auto is = [&](const char* kind) { return dtype.equal(py::dtype(kind)); };
  if (is("float32")) return DType::kFloat32;
  if (is("float16")) return DType::kFloat16;
  if (is("float64")) return DType::kFloat64;
  if (is("int64")) return DType::kInt64;
  if (is("int32")) return DType::kInt32;
  if (is("bool")) return DType::kBool;
  throw Error(code::kInvalidRequest,
              text("conditioning \"", name, "\": dtype ", py::str(dtype).cast<std::string>(),
                   "; float16/32/64, int32/64 and bool are allowed"));
}

TensorView view_of(const py::array& array, const std::string& name) {
  check(array.flags() & py::array::c_style, code::kInvalidRequest, "conditioning \"", name,
        "\": the array is not C-contiguous");
  return {const_cast<void*>(array.data()), dtype_of(array, name), shape_of(array)};
}

// Arrays are held by the caller's frame for the whole call, so views into them stay valid without the GIL.
std::vector<Conditioning> conditioning_of(const py::dict& positive, const py::dict& negative) {
  std::vector<Conditioning> conditioning;
  for (const auto& [key, value] : positive) {
    Conditioning item;
    item.name = key.cast<std::string>();
    item.positive = view_of(value.cast<py::array>(), item.name);
    if (negative.contains(key)) item.negative = view_of(negative[key].cast<py::array>(), item.name);
    conditioning.push_back(std::move(item));
  }
  for (const auto& [key, value] : negative)
    check(positive.contains(key), code::kInvalidRequest, "conditioning \"", key.cast<std::string>(),
          "\" has a negative half and no positive one");
  return conditioning;
}

// Wraps a Python callable `on_step(step, latents, denoised | None)`. It gets copies, so that nothing it keeps
// can dangle; a returned array replaces the latents.
StepCallback wrap_callback(const py::function& callback, const Shape& shape) {
  return [&callback, &shape](int step, float* latents, const float* denoised) {
    py::gil_scoped_acquire gil;
    const auto copy = [&](const float* values) { return Latents(shape, values); };
    const py::object given = denoised ? py::object(copy(denoised)) : py::none();
    const py::object result = callback(step, copy(latents), given);
    if (result.is_none()) return;
    const auto replaced = Latents::ensure(result);
    check(replaced && shape_of(replaced) == shape, code::kInvalidRequest,
          "callback: the returned latents must be a float32 array of shape ", to_string(shape));
    std::memcpy(latents, replaced.data(), static_cast<size_t>(replaced.nbytes()));
  };
}

// The values of an optional array of x's shape, or null.
const float* latents_like(const Latents& x, const std::optional<Latents>& array, const char* name) {
  if (!array) return nullptr;
  check(shape_of(*array) == shape_of(x), code::kInvalidRequest, name, ": got the shape ",
        to_string(shape_of(*array)), "; that of x, ", to_string(shape_of(x)), ", is allowed");
  return array->data();
}

Latents run_sample(const Denoiser& denoiser, const Program& program, const Latents& x, const py::dict& cond,
                   const py::dict& uncond, std::vector<double> guidance, rng::NoiseStream* noise,
                   std::optional<Latents> known, std::optional<Latents> mask,
                   std::optional<Latents> known_noise, CancelToken* cancel, std::optional<double> timeout,
                   Progress* progress, std::optional<py::function> on_step, bool wants_denoised,
                   std::optional<std::string> isa) {
  SampleRequest request;
  request.shape = shape_of(x);
  Latents result(request.shape, x.data());
  request.latents = result.mutable_data();
  request.program = &program;
  request.conditioning = conditioning_of(cond, uncond);
  request.guidance = std::move(guidance);
  request.noise = noise;
  request.inpainting = {latents_like(x, known, "known"), latents_like(x, mask, "mask"),
                        latents_like(x, known_noise, "known_noise")};
  request.limits.cancel = cancel;
  if (timeout) {
    check(std::isfinite(*timeout), code::kInvalidRequest, "deadline: got ", *timeout, "; it must be finite");
    request.limits.deadline =
        Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(*timeout));
  }
  request.progress = progress;
  if (on_step) request.on_step = wrap_callback(*on_step, request.shape);
  request.wants_denoised = wants_denoised;
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
  return result;
}

}  // namespace

void register_engine(py::module_& module) {
  register_program(module);

  py::class_<Denoiser, std::shared_ptr<Denoiser>>(module, "Denoiser", "A graph and the roles of its tensors.")
      .def(py::init([](std::shared_ptr<ort::Session> session, std::string sample, std::string noise_level,
                       std::string output, int images_per_run) {
             return std::make_shared<Denoiser>(std::move(session),
                                               DenoiserOptions{std::move(sample), std::move(noise_level),
                                                               std::move(output), images_per_run});
           }),
           py::arg("session"), py::kw_only(), py::arg("sample"), py::arg("noise_level"), py::arg("output"),
           py::arg("images_per_run") = 0)
      .def_property_readonly("conditioning_names", [](const Denoiser& denoiser) {
        std::vector<std::string> names;
        for (const auto& info : denoiser.conditioning()) names.push_back(info.name);
        return names;
      });

  py::class_<CancelToken, std::shared_ptr<CancelToken>>(
      module, "CancelToken", "Cancels every call that it was given to, from any thread; it stays cancelled.")
      .def(py::init<>())
      .def("cancel", &CancelToken::cancel, py::call_guard<py::gil_scoped_release>(),
           "Ends those calls at the next node of the running graph, or at the next step.")
      .def_property_readonly("cancelled", &CancelToken::is_cancelled)
      .def("_watch", &CancelToken::watch, py::arg("control"), py::call_guard<py::gil_scoped_release>(),
           "cancel() also terminates `control`, until _forget(control).")
      .def("_forget", &CancelToken::forget, py::arg("control"), py::call_guard<py::gil_scoped_release>());

  py::class_<Progress, std::shared_ptr<Progress>>(module, "Progress",
                                                  "Counts the steps of a call; may be read from any thread.")
      .def(py::init<>())
      .def_property_readonly("steps_done",
                             [](const Progress& progress) { return progress.steps_done.load(); })
      .def_property_readonly("steps_total",
                             [](const Progress& progress) { return progress.steps_total.load(); });

  module.def(
      "sample", &run_sample, py::arg("denoiser"), py::arg("program"), py::arg("x"), py::kw_only(),
      py::arg("cond") = py::dict(), py::arg("uncond") = py::dict(),
      py::arg("guidance") = std::vector<double>{1.0}, py::arg("noise") = nullptr,
      py::arg("known") = std::nullopt, py::arg("mask") = std::nullopt, py::arg("known_noise") = std::nullopt,
      py::arg("cancel") = nullptr, py::arg("timeout") = std::nullopt, py::arg("progress") = nullptr,
      py::arg("on_step") = std::nullopt, py::arg("wants_denoised") = false, py::arg("isa") = std::nullopt,
      "Runs a program against a denoiser. x: float32 [B, ...], not changed; returns float32 [B, ...].");
}

}  // namespace textopia::binding
