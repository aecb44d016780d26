#include "binding/arrays.h"

#include <cstring>

#include "base/error.h"

namespace py = pybind11;

namespace textopia::binding {
namespace {

constexpr DType kAll[] = {DType::kFloat32, DType::kUInt8,   DType::kInt8,    DType::kInt32,   DType::kInt64,
                          DType::kBool,    DType::kFloat16, DType::kFloat64, DType::kBFloat16};

std::string name_of_dtype(const py::array& array) { return py::str(array.dtype()); }

py::dtype numpy_type(DType dtype) { return py::dtype(dtype == DType::kBFloat16 ? "uint16" : name_of(dtype)); }

}  // namespace

py::array as_contiguous(const py::handle& object, const std::string& where) {
  if (!py::isinstance<py::array>(object)) {
    const std::string found = py::str(py::type::handle_of(object).attr("__name__"));
    throw Error(code::kInvalidRequest, text(where, " is a ", found, ", allowed is a numpy.ndarray"));
  }
  auto array = py::reinterpret_borrow<py::array>(object);
  if (array.dtype().byteorder() == '>')
    throw Error(code::kInvalidRequest, text(where, " has dtype ", name_of_dtype(array),
                                            ", allowed is the byte order of this machine"));
  if (is_plain(array)) return array;
  return array.attr("copy")("C");
}

Shape shape_of(const py::array& array) { return Shape(array.shape(), array.shape() + array.ndim()); }

bool is_plain(const py::array& array) {
  constexpr int kAligned = py::detail::npy_api::NPY_ARRAY_ALIGNED_, kPlain = py::array::c_style | kAligned;
  return (array.flags() & kPlain) == kPlain;
}

TensorView view_of(const py::array& array, DType wanted, const std::string& where) {
  const std::string found = name_of_dtype(array);
  TensorView view;
  // The graph only reads what it is given, so read-only arrays are as good as others.
  view.data = const_cast<void*>(array.data());
  view.shape = shape_of(array);
  if (wanted == DType::kBFloat16 && found == "uint16") {
    view.dtype = wanted;
    return view;
  }
  for (DType dtype : kAll) {
    if (found != name_of(dtype)) continue;
    view.dtype = dtype;
    return view;
  }
  const bool has_type = size_of(wanted) > 0;
  throw Error(code::kInvalidRequest, text(where, " has dtype ", found, has_type ? ", allowed is " : "",
                                          has_type ? name_of(wanted) : ", which the core does not handle"));
}

py::array make_array(DType dtype, const Shape& shape) {
  const size_t bytes = byte_count(shape, size_of(dtype));
  try {
    return py::array(numpy_type(dtype), std::vector<py::ssize_t>(shape.begin(), shape.end()));
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_MemoryError)) throw;
    throw Error(code::kOutOfMemory,
                text("no memory for an array of shape ", to_string(shape), ", ", bytes, " bytes"));
  }
}

py::array copy_to_array(const TensorView& tensor) {
  py::array array = make_array(tensor.dtype, tensor.shape);
  if (tensor.bytes() > 0) std::memcpy(array.mutable_data(), tensor.data, tensor.bytes());
  return array;
}

}  // namespace textopia::binding
