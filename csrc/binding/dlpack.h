// Arrays of a GPU by DLPack: what the caller's library exports comes in without a copy, and ours goes out.
#pragma once

#include <optional>
#include <string>

#include "binding/bind.h"
#include "engine/device_array.h"

namespace textopia::binding {

// Whether `value` says that it lies in a GPU's memory.
bool is_on_gpu(const pybind11::handle& value);

// `value`, which speaks DLPack, on that GPU. Its library is told the GPU's stream, which waits for what still
// writes the array; its memory lives as long as the result. `where` begins the error message. Throws
// Error{invalid_request} on another device, an element type that the core does not handle, and arrays that
// are not C-contiguous.
engine::DeviceArray import_array(std::shared_ptr<const engine::Gpu> gpu, const pybind11::object& value,
                                 const std::string& where);

// A capsule with `array`; of the versioned kind from version 1 on. Raises BufferError where the array is read
// only and the capsule cannot say so.
pybind11::object export_array(const engine::DeviceArray& array, bool is_versioned);

}  // namespace textopia::binding
