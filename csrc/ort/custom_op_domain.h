// Inside csrc/ort only: makes the operators of set_custom_ops() known to a session.
#pragma once

#include <string>

#include "ort/handles.h"

namespace textopia::ort {

void add_custom_ops(const Runtime& library, abi::SessionOptions* options, const std::string& label);

}  // namespace textopia::ort
