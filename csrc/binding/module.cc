// The Python module: a list of registrations and the one place where C++ errors become Python's.
#include <new>

#include "base/error.h"
#include "binding/bind.h"

namespace py = pybind11;

py::str textopia::binding::decode(const std::string& bytes) {
  auto text = py::reinterpret_steal<py::str>(
      PyUnicode_DecodeUTF8(bytes.data(), static_cast<py::ssize_t>(bytes.size()), "replace"));
  if (!text) throw py::error_already_set();
  return text;
}

namespace {

using textopia::binding::decode;

void raise(const textopia::Error& error) {
  py::dict details;
  for (const auto& [key, value] : error.details()) details[py::str(key)] = decode(value);
  py::object exception = py::module_::import("textopia_fast.errors")
                             .attr("from_native")(error.code(), decode(error.what()), details);
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.ptr())), exception.ptr());
}

}  // namespace

PYBIND11_MODULE(_core, module) {
  module.doc() = "The native core of textopia_fast. Use the package, not this module: it has no stable API.";
  module.attr("__version__") = TEXTOPIA_VERSION;
  // Local: another extension's std::bad_alloc is none of ours.
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const textopia::Error& error) {
      raise(error);
    } catch (const std::bad_alloc&) {
      raise({textopia::code::kOutOfMemory, "core: no memory left"});
    }
  });
  textopia::binding::register_kernels(module);
  textopia::binding::register_matrix(module);
  textopia::binding::register_noise(module);
  textopia::binding::register_request(module);
  textopia::binding::register_cuda(module);
  textopia::binding::register_device_array(module);
  textopia::binding::register_tuning(module);
  textopia::binding::register_session(module);
  textopia::binding::register_engine(module);
}
