#include "binding/bind.h"

namespace textopia::binding {

void register_noise(pybind11::module_& module) { (void)module; }

}  // namespace textopia::binding
