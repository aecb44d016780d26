// How activations become bytes, in plain code: x = (byte - zero_point) * scale. Include only inside an
// unnamed namespace: files of every instruction set have their own copy.
#pragma once

// The scale at which numbers from -low to high fit into bytes; both are bits of bfloat16. NaN where one is
// not finite; 0, which makes every number zero, where all are smaller than 2^-100.
inline float scale_of(uint16_t high, uint16_t low, int zero_point) {
  const auto number = [](uint16_t bits) {
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float x;
    __builtin_memcpy(&x, &wide, sizeof(x));
    return x;
  };
  if (high >= 0x7f80 || low >= 0x7f80) return __builtin_nanf("");
  const float above = number(high) / static_cast<float>(255 - zero_point);
  const float below = number(low) / static_cast<float>(zero_point);
  const float scale = above > below ? above : below;
  return scale < 0x1p-100f ? 0.0f : scale;
}

// What numbers are multiplied by before they are rounded: 0 where nothing sensible can come of it.
inline float inverse_of(float scale) { return scale > 0.0f ? 1.0f / scale : 0.0f; }
