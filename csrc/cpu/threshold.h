// What needs a statistic of a whole image: dynamic thresholding and the factor of guidance rescale. Every CPU
// computes the same bits; beside a graph run neither shows.
#pragma once

#include <cstddef>
#include <cstdint>

namespace textopia::cpu {

// The quantile `ratio` (0..1) of the magnitudes of values[count], count >= 1, linear between two of them and
// rounded as torch.quantile does in float32. NaN counts as larger than everything. `scratch` has room for
// `count` numbers.
float quantile_of_magnitudes(const float* values, size_t count, float ratio, uint32_t* scratch);

// target = source limited to [-s, s], divided by s; s = that quantile, at least 1 and then at most `high`.
// In place is allowed.
void threshold(const float* source, float* target, size_t count, float ratio, float high, uint32_t* scratch);

// std(positive) / std(negative + guidance * (positive - negative)) over `count` elements, summed in float64;
// 1 where the guided values are all the same.
double deviation_ratio(const float* negative, const float* positive, size_t count, double guidance);

}  // namespace textopia::cpu
