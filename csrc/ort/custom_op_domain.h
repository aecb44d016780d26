// Inside csrc/ort only: a set of operators as ORT wants it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ort/custom_op.h"
#include "ort/handles.h"

namespace textopia::ort {

struct OpTable;

// The operators of one session, which it outlives. ORT offers a kernel no way to its session, so each session
// has tables of its own.
class OpDomain {
 public:
  OpDomain(const Runtime& library, OpSet ops, OpSession session, const std::string& label);
  ~OpDomain();
  OpDomain(const OpDomain&) = delete;
  OpDomain& operator=(const OpDomain&) = delete;

  void add_to(abi::SessionOptions* options, const std::string& label) const;

 private:
  const Runtime& library_;
  OpSet ops_;
  OpSession session_;
  std::vector<OpTable> tables_;  // ORT's domain points into them
  CustomOpDomainHandle domain_;
};

// The error with which an operator of ours stopped what ORT did last on this thread, once: of it ORT hands on
// the text alone.
std::optional<Error> take_op_failure();

// Those of set_custom_ops(), if any.
std::optional<OpSet> default_ops();

}  // namespace textopia::ort
