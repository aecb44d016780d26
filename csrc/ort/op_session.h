// What the operators of a session have in common.
#pragma once

#include <memory>

namespace textopia::ort {

// What the maker of a session has for its operators beside the graph; carried here, known above.
struct OpContext {
  virtual ~OpContext() = default;
};

// What all operators of one session share.
struct OpSession {
  int threads = 1;  // that work on a run, the caller's among them
  std::shared_ptr<OpContext> context;
};

}  // namespace textopia::ort
