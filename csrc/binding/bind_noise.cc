#include <utility>

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
      .def("draw", &draw, py::arg("image_count"), py::arg("count_per_image"),
           "The next draw: float32 [image_count, count_per_image]. Raises InvalidRequestError when the "
           "stream is in "
           "use by another thread, has another number of images, or has run out.");
}

}  // namespace textopia::binding
