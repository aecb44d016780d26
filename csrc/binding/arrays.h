// NumPy arrays as tensors of the core.
#pragma once

#include <string>

#include "base/tensor.h"
#include "binding/bind.h"

namespace textopia::binding {

// `object` as a C-contiguous, aligned array, copied only where it is not one. `where` begins the error
// message. Throws Error{invalid_request} unless it is a numpy.ndarray of a type that the core handles, in
// native byte order.
pybind11::array as_contiguous(const pybind11::handle& object, const std::string& where);

Shape shape_of(const pybind11::array& array);

// Whether the memory of `array` can be used as it is: C-contiguous and aligned.
bool is_plain(const pybind11::array& array);

// The memory of `array` as the core sees it. bfloat16 has no NumPy type: where `wanted` is bfloat16, uint16
// holds its bits.
TensorView view_of(const pybind11::array& array, DType wanted, const std::string& where);

// A new, uninitialised array; bfloat16 becomes uint16. Throws Error{invalid_request} on an impossible shape,
// out_of_memory where NumPy finds no room.
pybind11::array make_array(DType dtype, const Shape& shape);

// A new array with a copy of the tensor.
pybind11::array copy_to_array(const TensorView& tensor);

}  // namespace textopia::binding
