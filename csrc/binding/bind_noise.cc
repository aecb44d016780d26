#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "binding/arrays.h"
#include "binding/bind.h"
#include "rng/noise.h"

namespace py = pybind11;

namespace textopia::binding {
namespace {

using FloatArray = py::array_t<float, py::array::c_style>;
using Holder = std::shared_ptr<rng::NoiseStream>;

FloatArray draw(rng::NoiseStream& stream, int64_t image_count, int64_t count_per_image) {
  FloatArray out = make_array(DType::kFloat32, {image_count, count_per_image});
  float* data = out.mutable_data();
  {
    py::gil_scoped_release release;
    rng::NoiseLease lease(stream);
    stream.draw(data, static_cast<size_t>(image_count), static_cast<size_t>(count_per_image));
  }
  return out;
}

Holder array_stream(const py::array& values) {
  check(py::isinstance<FloatArray>(values) && is_plain(values), code::kInvalidRequest,
        "noise array: dtype is ", std::string(py::str(values.dtype())),
        " or the array is strided or unaligned, contiguous float32 is needed");
  check(values.ndim() >= 2, code::kInvalidRequest, "noise array: it has ", values.ndim(),
        " dimensions, [draws, ...] with at least 2 is needed");
  const auto* data = static_cast<const float*>(values.data());
  return rng::array_stream(std::vector<float>(data, data + values.size()),
                           static_cast<size_t>(values.shape(0)));
}

// Draws that a Python function makes. The only stream for which the loop takes the GIL.
class FunctionStream final : public rng::NoiseStream {
 public:
  explicit FunctionStream(py::function function) : function_(std::move(function)) {}

  void draw(float* out, size_t image_count, size_t count_per_image) override {
    py::gil_scoped_acquire gil;
    const py::object given = function_(image_count, count_per_image);
    const size_t count = image_count * count_per_image;
    check(py::isinstance<FloatArray>(given) && is_plain(py::reinterpret_borrow<py::array>(given)),
          code::kInvalidRequest, "noise function: gave ", std::string(py::str(py::type::of(given))),
          ", contiguous float32 is needed");
    const auto values = py::reinterpret_borrow<FloatArray>(given);
    check(static_cast<size_t>(values.size()) == count, code::kInvalidRequest, "noise function: gave ",
          values.size(), " values, ", count, " were asked for");
    std::memcpy(out, values.data(), count * sizeof(float));
  }

 private:
  py::function function_;
};

std::vector<std::string> bytes_of(const std::vector<py::bytes>& states) {
  return {states.begin(), states.end()};
}

std::shared_ptr<rng::CallerStream> torch_state_stream(const std::vector<py::bytes>& states,
                                                      std::vector<size_t> owners) {
  return rng::torch_state_stream(bytes_of(states), std::move(owners));
}

std::shared_ptr<rng::CallerStream> cuda_state_stream(const std::vector<py::bytes>& states,
                                                     std::vector<size_t> owners) {
  return rng::cuda_state_stream(bytes_of(states), std::move(owners));
}

std::vector<py::bytes> states_of(const rng::CallerStream& stream) {
  const std::vector<std::string> states = stream.states();
  return {states.begin(), states.end()};
}

void follow(rng::BrownianStream& stream, const std::vector<std::pair<double, double>>& intervals) {
  std::vector<rng::Interval> followed;
  followed.reserve(intervals.size());
  for (const auto& [from, to] : intervals) followed.push_back({from, to});
  rng::NoiseLease lease(stream);
  stream.follow(std::move(followed));
}

}  // namespace

void register_noise(py::module_& module) {
  py::class_<rng::NoiseStream, Holder>(module, "NoiseStream",
                                       "A stream of standard normal numbers; one user at a time.")
      .def_static(
          "torch",
          [](std::vector<uint64_t> seeds, bool shared) -> Holder { return rng::torch_stream(seeds, shared); },
          py::arg("seeds"), py::arg("shared") = false,
          "torch.randn of CPU generators, bit for bit as torch computes it on x86 with AVX2 (without AVX2 "
          "torch's "
          "own last bits differ). One generator per image, or one for the batch when shared.")
      .def_static(
          "cuda",
          [](std::vector<uint64_t> seeds, bool shared) -> Holder { return rng::cuda_stream(seeds, shared); },
          py::arg("seeds"), py::arg("shared") = false,
          "torch.randn of CUDA generators (Philox4x32-10, small tensors), to the last bits of float32.")
      .def_static(
          "philox",
          [](std::vector<uint64_t> seeds) -> Holder { return rng::philox_stream(std::move(seeds)); },
          py::arg("seeds"), "Counter-based: a value depends on (seed of its image, draw, element) alone.")
      .def_static("array", &array_stream, py::arg("values"),
                  "Noise given by the caller, copied. values: float32 [draws, ...]; draw k returns block k.")
      .def_static(
          "function",
          [](py::function function) -> Holder { return std::make_shared<FunctionStream>(function); },
          py::arg("function"),
          "Noise that a Python function makes: function(image_count, count_per_image) gives float32 of as "
          "many "
          "values.")
      .def_property_readonly("is_shared", &rng::NoiseStream::is_shared,
                             "One generator draws the whole batch at once.")
      .def("draw", &draw, py::arg("image_count"), py::arg("count_per_image"),
           "The next draw: float32 [image_count, count_per_image]. Raises InvalidRequestError when the "
           "stream is in "
           "use by another thread, has another number of images, or has run out.");

  py::class_<rng::CallerStream, rng::NoiseStream, std::shared_ptr<rng::CallerStream>>(
      module, "CallerStream", "Goes on from the states of torch.Generators.")
      .def_static(
          "torch_states", &torch_state_stream, py::arg("states"), py::arg("owners"),
          "From get_state of CPU generators; owners[i] is the generator of image i, none: one for all.")
      .def_static("cuda_states", &cuda_state_stream, py::arg("states"), py::arg("owners"),
                  "The same for CUDA generators, computed on the CPU.")
      .def("states", &states_of, "The states after the draws so far, for set_state.");

  py::class_<rng::BrownianStream, rng::NoiseStream, std::shared_ptr<rng::BrownianStream>>(
      module, "BrownianStream", "Increments of Brownian paths over sigma, one path per image.")
      .def_static(
          "of_seeds",
          [](std::vector<uint64_t> seeds) -> std::shared_ptr<rng::BrownianStream> {
            auto others = rng::torch_stream(seeds, false);
            return rng::brownian_stream(std::move(seeds), std::move(others));
          },
          py::arg("seeds"),
          "One path per seed; what is not over an interval is drawn as by `torch` of the seeds.")
      .def("follow", &follow, py::arg("intervals"),
           "The (from, to) that the next draws stand for; of equal ends where none.");
}

}  // namespace textopia::binding