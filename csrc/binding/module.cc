// The Python module: a list of registrations and the one place where C++ errors become Python's.
#include <new>

#include "base/error.h"
#include "binding/bind.h"

namespace py = pybind11;

namespace {

void raise(const textopia::Error& error) {
  py::dict details;
  for (const auto& [key, value] : error.details()) details[py::str(key)] = value;
  py::object exception =
      py::module_::import("textopia_fast.errors").attr("from_native")(error.code(), error.what(), details);
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.ptr())), exception.ptr());
}

}  // namespace

PYBIND11_MODULE(_core, module) {
  module.doc() = "The native core of textopia_fast. Use the package, not this module: it has no stable API.";
  module.attr("__version__") = TEXTOPIA_VERSION;
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const textopia::Error& error) {
      raise(error);
    }
  });
  textopia::binding::register_kernels(module);
  textopia::binding::register_noise(module);
  textopia::binding::register_session(module);
  textopia::binding::register_engine(module);
}
