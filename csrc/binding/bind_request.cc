// CancelToken and Progress: what the outside may do to a call while it goes on.
#include "binding/bind.h"
#include "engine/request.h"

namespace py = pybind11;

namespace textopia::binding {

using engine::CancelToken;
using engine::Progress;

void register_request(py::module_& module) {
  py::class_<CancelToken, std::shared_ptr<CancelToken>>(
      module, "CancelToken", "Cancels every call that it was given to, from any thread; it stays cancelled.")
      .def(py::init<>())
      .def("cancel", &CancelToken::cancel, py::call_guard<py::gil_scoped_release>(),
           "Ends those calls at the next node of the running graph, or at the next step.")
      .def_property_readonly("cancelled", &CancelToken::is_cancelled);

  py::class_<Progress, std::shared_ptr<Progress>>(module, "Progress",
                                                  "Counts the steps of a call; may be read from any thread.")
      .def(py::init<>())
      .def(
          "begin",
          [](Progress& progress, int total) {
            progress.steps_done.store(0);
            progress.steps_total.store(total);
          },
          py::arg("total"), "Starts to count, for loops in Python; 0: how many is not known beforehand.")
      .def("advance", [](Progress& progress) { progress.steps_done.fetch_add(1); })
      .def_property_readonly("steps_done",
                             [](const Progress& progress) { return progress.steps_done.load(); })
      .def_property_readonly("steps_total",
                             [](const Progress& progress) { return progress.steps_total.load(); });
}

}  // namespace textopia::binding
