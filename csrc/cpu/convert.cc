#include "cpu/convert.h"

#include "base/error.h"

namespace textopia::cpu {
namespace {

const ConvertKernels& active() {
  static const ConvertKernels& kernels = convert_kernels(active_isa());
  return kernels;
}

}  // namespace

const ConvertKernels& convert_kernels(Isa isa) {
  check(is_supported(isa), code::kConfiguration, "convert: this CPU has no '", name_of(isa),
        "', its best is '", name_of(supported_isas().front()), "'");
#ifdef TEXTOPIA_X86
  if (isa != Isa::kScalar) return convert_kernels_avx2();
#endif
  return convert_kernels_scalar();
}

void float_to_half(const float* source, uint16_t* target, size_t count) {
  active().float_to_half(source, target, count);
}

void half_to_float(const uint16_t* source, float* target, size_t count) {
  active().half_to_float(source, target, count);
}

void float_to_bfloat16(const float* source, uint16_t* target, size_t count) {
  active().float_to_bfloat16(source, target, count);
}

void bfloat16_to_float(const uint16_t* source, float* target, size_t count) {
  active().bfloat16_to_float(source, target, count);
}

}  // namespace textopia::cpu
