#include "cpu/combine.h"

#include "base/error.h"

namespace textopia::cpu {
namespace {

constexpr CombineKernel kKernels[] = {
#ifdef TEXTOPIA_X86
    {Isa::kAvx512, combine_avx512},
    {Isa::kAvx2, combine_avx2},
#endif
    {Isa::kScalar, combine_scalar},
};

}  // namespace

std::span<const CombineKernel> combine_kernels() { return kKernels; }

CombineFn combine_kernel(Isa isa) {
  for (const CombineKernel& kernel : kKernels)
    if (kernel.isa == isa && is_supported(isa)) return kernel.run;
  throw Error(code::kConfiguration, text("combine: no kernel for '", name_of(isa),
                                         "' here, the best one is '", name_of(supported_isas()[0]), "'"));
}

}  // namespace textopia::cpu
