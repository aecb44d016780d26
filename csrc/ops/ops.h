// The fused operators of the graphs that the compiler writes, domain "ai.textopia". Images are [B, H, W, C],
// tokens [B, S, C]; biases, gamma and beta float32. Activations: on the CPU bfloat16 (float32 too, in plain
// code), on a GPU float16 and bfloat16 (float32 where such kernels are compiled).
#pragma once

#include <memory>
#include <utility>

#include "cpu/plan.h"
#include "ops/gpu.h"
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

// Makes them known to every session on the CPU. Called once, when the package is imported.
void register_ops();

ort::OpDefinition attention_cuda(const GpuQueue& queue);
ort::OpDefinition geglu_cuda(const GpuQueue& queue);
ort::OpDefinition group_norm_cuda(const GpuQueue& queue);
ort::OpDefinition layer_norm_cuda(const GpuQueue& queue);

// Those of a session on a GPU. `is_emulated`: its graphs run on the CPU provider.
std::shared_ptr<const ort::OpSet> gpu_ops(const GpuQueue& queue, bool is_emulated);

}  // namespace textopia::ops
