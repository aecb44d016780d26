#include "ops/ops.h"

namespace textopia::ops {

void register_ops() {
  ort::set_custom_ops({kDomain,
                       "CPUExecutionProvider",
                       {DType::kBFloat16, DType::kFloat32},
                       {kAttention, kConv, kGroupNorm, kLayerNorm, kLinear, kLinearGeglu}});
}

std::shared_ptr<const ort::OpSet> gpu_ops(const GpuQueue& queue, bool is_emulated) {
  return std::make_shared<ort::OpSet>(
      ort::OpSet{kDomain,
                 is_emulated ? "CPUExecutionProvider" : "CUDAExecutionProvider",
                 {DType::kFloat16, DType::kBFloat16, DType::kFloat32},
                 {attention_cuda(queue), geglu_cuda(queue), group_norm_cuda(queue), layer_norm_cuda(queue)}});
}

}  // namespace textopia::ops
