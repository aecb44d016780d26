#include "binding/bind.h"

namespace textopia::binding {

void register_kernels(pybind11::module_& module) { (void)module; }

}  // namespace textopia::binding
