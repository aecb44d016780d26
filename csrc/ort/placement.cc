// Which nodes of a CUDA session do not run on the GPU, and whether that is meant.
#include <algorithm>
#include <array>
#include <string_view>

#include "ort/session_impl.h"

namespace textopia::ort {
namespace {

constexpr int kKnowsPlacement = 24;  // the first API version whose sessions say where their nodes are

// The provider leaves arithmetic on sizes and positions to the CPU on purpose: a few numbers, which the host
// has to know before it can launch what depends on them.
constexpr auto kSizeArithmetic = std::to_array<std::string_view>(
    {"Add",   "ArgMax", "Cast",    "Ceil",       "Concat",    "Constant", "ConstantOfShape",
     "Div",   "Equal",  "Expand",  "Floor",      "Gather",    "Max",      "Min",
     "Mod",   "Mul",    "Range",   "ReduceProd", "Reshape",   "Shape",    "Size",
     "Slice", "Sqrt",   "Squeeze", "Sub",        "Unsqueeze", "Where"});

bool is_size_arithmetic(const std::string& domain, const std::string& op) {
  return domain.empty() &&
         std::find(kSizeArithmetic.begin(), kSizeArithmetic.end(), op) != kSizeArithmetic.end();
}

}  // namespace

void request_placement(const Runtime& library, abi::SessionOptions* options, const std::string& label) {
  // Libraries that cannot say refuse every node on the CPU by themselves, without a name.
  const char* key = library.info.api_version >= kKnowsPlacement ? "session.record_ep_graph_assignment_info"
                                                                : "session.disable_cpu_ep_fallback";
  check_status(library.api, library.api.AddSessionConfigEntry(options, key, "1"), Activity::kOther, label,
               "a config entry cannot be set");
}

void check_placement(const Runtime& library, const abi::Session* session, const std::string& label) {
  const abi::Api& api = library.api;
  if (library.info.api_version < kKnowsPlacement) return;
  const auto checked = [&](abi::Status* status) {
    check_status(api, status, Activity::kLoad, label, "the placement of its nodes cannot be read");
  };
  const auto text_of = [&](const auto& get, const auto* object) {
    const char* text = nullptr;
    checked(get(object, &text));
    return std::string(text != nullptr ? text : "");
  };
  constexpr size_t kNamed = 5;
  std::string names;
  size_t refused = 0, subgraph_count = 0;
  const abi::EpAssignedSubgraph* const* subgraphs = nullptr;
  checked(api.Session_GetEpGraphAssignmentInfo(session, &subgraphs, &subgraph_count));
  for (size_t i = 0; i < subgraph_count; ++i) {
    if (text_of(api.EpAssignedSubgraph_GetEpName, subgraphs[i]) != "CPUExecutionProvider") continue;
    const abi::EpAssignedNode* const* nodes = nullptr;
    size_t node_count = 0;
    checked(api.EpAssignedSubgraph_GetNodes(subgraphs[i], &nodes, &node_count));
    for (size_t k = 0; k < node_count; ++k) {
      const std::string op = text_of(api.EpAssignedNode_GetOperatorType, nodes[k]);
      if (is_size_arithmetic(text_of(api.EpAssignedNode_GetDomain, nodes[k]), op)) continue;
      if (++refused <= kNamed)
        names +=
            text(refused > 1 ? ", " : "", "'", text_of(api.EpAssignedNode_GetName, nodes[k]), "' (", op, ")");
    }
  }
  if (refused == 0) return;
  if (refused > kNamed) names += text(" and ", refused - kNamed, " more");
  throw Error(code::kModelUnsupported, text(label, ": ONNX Runtime's CUDA provider cannot run ", names, "."),
              {{"component", label}, {"hint", "device=\"cpu\" runs every node that ONNX Runtime has."}});
}

}  // namespace textopia::ort
