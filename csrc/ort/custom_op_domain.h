// Inside csrc/ort only: makes the operators of set_custom_ops() known to a session.
#pragma once

#include <memory>
#include <string>

#include "ort/custom_op.h"
#include "ort/handles.h"

namespace textopia::ort {

// What is returned must outlive the session: its kernels point into it.
std::shared_ptr<const void> add_custom_ops(const Runtime& library, abi::SessionOptions* options,
                                           const std::string& label, OpSession session);

}  // namespace textopia::ort
