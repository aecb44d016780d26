// The matrix units, and weights packed for them.
#include "base/buffer.h"
#include "base/isa.h"
#include "binding/arrays.h"
#include "binding/bind.h"
#include "cpu/panels.h"
#include "ops/ops.h"

namespace py = pybind11;

namespace textopia::binding {
namespace {

using Weights = py::array_t<float, py::array::c_style>;
using Panels = py::array_t<uint16_t, py::array::c_style>;
using Bytes = py::array_t<uint8_t, py::array::c_style>;

// float32, contiguous and without an empty side; anything else is an error, not a silent copy.
const float* data_of(const py::array& weight, int rank, const char* function, const char* form) {
  bool is_valid = py::isinstance<Weights>(weight) && is_plain(weight) && weight.ndim() == rank;
  for (py::ssize_t i = 0; is_valid && i < rank; ++i) is_valid = weight.shape(i) >= 1;
  check(is_valid, code::kInvalidRequest, function, ": the weight is ", std::string(py::str(weight.dtype())),
        " ", to_string(shape_of(weight)), ", needed is a contiguous float32 ", form);
  return static_cast<const float*>(weight.data());
}

// int8 panels are bytes.
py::array empty_panels(int64_t elements, bool is_int8) {
  if (is_int8) return Bytes(2 * elements);
  return Panels(elements);
}

py::array pack_linear(const py::array& weight, bool geglu, bool int8) {
  const float* from = data_of(weight, 2, "pack_linear", "[out, in]");
  check(!geglu || weight.shape(0) % 2 == 0, code::kInvalidRequest, "pack_linear: ", weight.shape(0),
        " rows, GEGLU needs as many gates as values");
  const cpu::PanelShape shape = {weight.shape(0) / (geglu ? 2 : 1), weight.shape(1), 1, geglu, int8};
  py::array panels = empty_panels(shape.elements(), int8);
  auto* to = static_cast<uint16_t*>(panels.mutable_data());
  py::gil_scoped_release release;
  (int8 ? cpu::pack_int8 : cpu::pack_linear)(from, shape, to);
  return panels;
}

py::array pack_conv(const py::array& weight, bool upsample, bool int8) {
  const float* from = data_of(weight, 4, "pack_conv", "[out, height, width, in]");
  const int64_t side = weight.shape(1);
  check(side == weight.shape(2) && (side == 3 || (side == 1 && !upsample)), code::kInvalidRequest,
        "pack_conv: the kernel is ", side, " x ", weight.shape(2), ", allowed are 3 x 3",
        upsample ? "" : " and 1 x 1");
  const int64_t columns = weight.shape(0), channels = weight.shape(3);
  const int phases = upsample ? cpu::kPhases : 1;
  const cpu::PanelShape shape = {columns, channels, upsample ? 4 : static_cast<int>(side * side), false,
                                 int8};
  py::array panels = empty_panels(phases * shape.elements(), int8);
  auto* to = static_cast<uint16_t*>(panels.mutable_data());
  const auto pack = int8 ? cpu::pack_int8 : cpu::pack_conv;
  py::gil_scoped_release release;
  if (!upsample) {
    pack(from, shape, to);
    return panels;
  }
  const int64_t kernel = columns * shape.taps * channels;
  Buffer<float> split(static_cast<size_t>(phases * kernel));
  cpu::split_into_phases(from, columns, channels, split.data());
  for (int phase = 0; phase < phases; ++phase)
    pack(split.data() + phase * kernel, shape, to + phase * shape.elements());
  return panels;
}

}  // namespace

void register_matrix(py::module_& module) {
  ops::register_ops();
  module.def(
      "supported_matrix_units",
      [] {
        std::vector<std::string> names;
        for (MatrixUnit unit : supported_matrix_units()) names.emplace_back(name_of(unit));
        return names;
      },
      "What can multiply bfloat16 matrices here, best first.");
  module.def(
      "active_matrix_unit", [] { return name_of(active_matrix_unit()); },
      "The unit that new sessions take: the best one that TEXTOPIA_FORCE_ISA allows.");
  module.def("set_matrix_unit", &set_matrix_unit, py::arg("name"),
             "The unit that new sessions take from now on, for tests and comparisons. Raises "
             "ConfigurationError when this machine lacks it.");
  module.def("amx_refusal", &amx_refusal, "Why a CPU with AMX cannot use it; empty otherwise.");
  module.def(
      "int8_unit",
      [] {
        const MatrixUnit unit = active_matrix_unit();
        if (!has_int8(unit)) return name_of(MatrixUnit::kScalar);
        return unit == MatrixUnit::kAmxBf16 ? "amx_int8" : "avx512_vnni";
      },
      "What multiplies int8 matrices beside active_matrix_unit(); scalar where nothing fast does.");
  module.def("pack_linear", &pack_linear, py::arg("weight"), py::kw_only(), py::arg("geglu") = false,
             py::arg("int8") = false,
             "float32 [out, in] as the `bf16_panels` of Linear, uint16, or its `int8_panels`, uint8; with "
             "geglu, values above gates, of LinearGeglu. Raises InvalidRequestError.");
  module.def("pack_conv", &pack_conv, py::arg("weight"), py::kw_only(), py::arg("upsample") = false,
             py::arg("int8") = false,
             "float32 [out, height, width, in] as the `bf16_panels` of Conv, uint16, or its `int8_panels`, "
             "uint8; with upsample, the four phase kernels. Raises InvalidRequestError.");
}

}  // namespace textopia::binding
