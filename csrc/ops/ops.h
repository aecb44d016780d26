// The fused operators of the graphs that the compiler writes, domain "ai.textopia". Images are [B, H, W, C],
// tokens [B, S, C]; activations bfloat16 (float32 too, in plain code), biases, gamma and beta float32.
#pragma once

#include <memory>
#include <utility>

#include "cpu/plan.h"
#include "ort/custom_op.h"

namespace textopia::ops {

// What a session may have for them: plans that were measured, or a measurement of plans.
struct PlanContext final : ort::OpContext {
  explicit PlanContext(std::shared_ptr<cpu::PlanSource> source) : plans(std::move(source)) {}
  std::shared_ptr<cpu::PlanSource> plans;
};

inline constexpr const char* kDomain = "ai.textopia";

extern const ort::OpDefinition kAttention;
extern const ort::OpDefinition kConv;
extern const ort::OpDefinition kGroupNorm;
extern const ort::OpDefinition kLayerNorm;
extern const ort::OpDefinition kLinear;
extern const ort::OpDefinition kLinearGeglu;

// Makes them known to every session. Called once, when the package is imported.
void register_ops();

}  // namespace textopia::ops
