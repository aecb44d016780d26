#include "binding/bind.h"

namespace textopia::binding {

void register_session(pybind11::module_& module) { (void)module; }

}  // namespace textopia::binding
