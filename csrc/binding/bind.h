// What every bind_*.cc shares. One file per concept, each with one register_* function.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

namespace textopia::binding {

// Text that may quote a file or its name; neither has to be UTF-8.
pybind11::str decode(const std::string& bytes);

void register_kernels(pybind11::module_& module);
void register_matrix(pybind11::module_& module);
void register_noise(pybind11::module_& module);
void register_request(pybind11::module_& module);
void register_session(pybind11::module_& module);
void register_tuning(pybind11::module_& module);
void register_program(pybind11::module_& module);
void register_cuda(pybind11::module_& module);
void register_device_array(pybind11::module_& module);
void register_engine(pybind11::module_& module);

}  // namespace textopia::binding
