// NumPy arrays as tensors of the core.
#pragma once

#include <string>

#include "base/tensor.h"
#include "binding/bind.h"

namespace textopia::binding {

// `object` as a C-contiguous array, copied only when it is strided. `where` begins the error message. Throws
// Error{invalid_request} unless it is a numpy.ndarray of a type that the core handles, in native byte order.
pybind11::array as_contiguous(const pybind11::handle& object, const std::string& where);

// The memory of `array` as the core sees it. bfloat16 has no NumPy type: where `wanted` is bfloat16, uint16
// holds its bits.
TensorView view_of(const pybind11::array& array, DType wanted, const std::string& where);

// A new, uninitialised array; bfloat16 becomes uint16.
pybind11::array make_array(DType dtype, const Shape& shape);

// A new array with a copy of the tensor.
pybind11::array copy_to_array(const TensorView& tensor);

}  // namespace textopia::binding
