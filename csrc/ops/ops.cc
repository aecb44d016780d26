#include "ops/ops.h"

namespace textopia::ops {

void register_ops() {
  static const ort::OpDefinition definitions[] = {kAttention, kConv,   kGroupNorm,
                                                  kLayerNorm, kLinear, kLinearGeglu};
  ort::set_custom_ops(kDomain, definitions);
}

}  // namespace textopia::ops
