// DeviceArray: a tensor that stays on the GPU, for whoever takes it by DLPack.
#include <optional>

#include "base/error.h"
#include "binding/arrays.h"
#include "binding/bind.h"
#include "binding/dlpack.h"

namespace py = pybind11;

namespace textopia::binding {
namespace {

using engine::DeviceArray;
using engine::Gpu;

constexpr int kDeviceCpu = 1, kDeviceCuda = 2;

std::shared_ptr<DeviceArray> take_array(std::shared_ptr<Gpu> gpu, const py::object& value,
                                        const std::string& name) {
  if (is_on_gpu(value)) return std::make_shared<DeviceArray>(import_array(std::move(gpu), value, name));
  const py::array array = as_contiguous(value, name);
  const TensorView view = view_of(array, DType::kFloat32, name);
  py::gil_scoped_release no_gil;
  return std::make_shared<DeviceArray>(DeviceArray::of_host(std::move(gpu), view));
}

py::array download(const DeviceArray& array) {
  py::array result = make_array(array.dtype(), array.shape());
  void* target = result.mutable_data();
  py::gil_scoped_release no_gil;
  array.download(target);
  return result;
}

std::shared_ptr<DeviceArray> convert(const DeviceArray& array, const std::string& dtype, double scale) {
  for (const DType known : {DType::kFloat32, DType::kFloat16, DType::kBFloat16})
    if (dtype == name_of(known)) return std::make_shared<DeviceArray>(array.converted(known, scale));
  check(dtype == name_of(array.dtype()) && scale == 1.0, code::kInvalidRequest, "an array of ",
        name_of(array.dtype()), " on ", array.gpu()->device()->label(), "; ", dtype, " is allowed here");
  return std::make_shared<DeviceArray>(array);
}

// The protocol of the array API standard, 2024.12. The consumer's `stream` has nothing to wait for: what we
// give away is complete.
py::object to_dlpack(const DeviceArray& array, const py::object& stream,
                     std::optional<std::pair<int, int>> max_version,
                     std::optional<std::pair<int, int>> dl_device, std::optional<bool> copy) {
  const int ordinal = array.gpu()->device()->ordinal();
  if (!stream.is_none() && (!py::isinstance<py::int_>(stream) || stream.equal(py::int_(0))))
    throw py::value_error("stream: allowed are None, -1, 1, 2 and the address of a stream; 0 is ambiguous");
  if (dl_device && dl_device->first == kDeviceCpu) {
    if (copy && !*copy) throw py::buffer_error("an array on a GPU cannot be on the CPU without a copy");
    py::dict options;
    if (max_version) options["max_version"] = *max_version;
    return download(array).attr("__dlpack__")(**options);
  }
  if (dl_device && *dl_device != std::pair(kDeviceCuda, ordinal))
    throw py::buffer_error(text("the array is on cuda:", ordinal, ", and is copied to the CPU alone"));
  const bool is_versioned = max_version && max_version->first >= 1;
  if (copy && *copy) {
    const DeviceArray copied = [&] {
      py::gil_scoped_release no_gil;
      return array.repeated(1);
    }();
    return export_array(copied, is_versioned);
  }
  if (array.is_foreign()) {
    py::gil_scoped_release no_gil;
    array.wait();
  }
  return export_array(array, is_versioned);
}

py::tuple shape_tuple(const DeviceArray& array) { return py::tuple(py::cast(array.shape())); }

std::string label_of(const DeviceArray& array) { return array.gpu()->device()->label(); }

}  // namespace

void register_device_array(py::module_& module) {
  const auto no_gil = py::call_guard<py::gil_scoped_release>();
  py::class_<DeviceArray, std::shared_ptr<DeviceArray>>(
      module, "DeviceArray",
      "A tensor in a GPU's memory, C-contiguous. torch.from_dlpack, cupy.from_dlpack and the like take it "
      "without a copy; `numpy()` copies it to the CPU. Its memory is freed when nobody has it any more.")
      .def(py::init(&take_array), py::arg("gpu").none(false), py::arg("value"), py::arg("name") = "array",
           "`value` on that GPU: what lies there as it is, NumPy arrays copied.")
      .def_property_readonly("shape", &shape_tuple)
      .def_property_readonly("ndim", [](const DeviceArray& array) { return array.shape().size(); })
      .def_property_readonly(
          "dtype", [](const DeviceArray& array) { return name_of(array.dtype()); },
          "NumPy's name of the element type, or \"bfloat16\".")
      .def_property_readonly("device", &label_of, "\"cuda:0\" and so on.")
      .def("numpy", &download, "A copy on the CPU; bfloat16 as its bits, uint16.")
      .def("astype", &convert, py::arg("dtype"), py::arg("scale") = 1.0, no_gil,
           "As another floating-point type, times `scale`; on the GPU.")
      .def(
          "repeat", [](const DeviceArray& array, size_t count) { return array.repeated(count); },
          py::arg("count"), no_gil, "Every row of the first axis `count` times, as numpy.repeat does.")
      .def("__len__",
           [](const DeviceArray& array) {
             if (array.shape().empty()) throw py::type_error("a scalar has no length");
             return array.shape()[0];
           })
      .def("__repr__",
           [](const DeviceArray& array) {
             return text("DeviceArray(shape=", std::string(py::str(shape_tuple(array))),
                         ", dtype=", name_of(array.dtype()), ", device=", label_of(array), ")");
           })
      .def("__dlpack__", &to_dlpack, py::kw_only(), py::arg("stream") = py::none(),
           py::arg("max_version") = std::nullopt, py::arg("dl_device") = std::nullopt,
           py::arg("copy") = std::nullopt)
      .def("__dlpack_device__",
           [](const DeviceArray& array) { return std::pair(kDeviceCuda, array.gpu()->device()->ordinal()); });
  module.def("is_on_gpu", &is_on_gpu, py::arg("value"),
             "Whether an array says by DLPack that it lies in a GPU's memory.");
}

}  // namespace textopia::binding
