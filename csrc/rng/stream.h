// What the streams share: checks of their arguments and the choice of a kernel table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "rng/normal.h"

namespace textopia::rng {

// Throws Error{invalid_request} without seeds, or with several seeds and is_shared. `name` is the stream's.
void check_seeds(const char* name, const std::vector<uint64_t>& seeds, bool is_shared);

// Throws Error{invalid_request} unless there is a seed for each image (or one generator for all).
void check_images(size_t image_count, const std::vector<uint64_t>& seeds, bool is_shared);

// The kernels of active_isa().
const NormalKernels& normal_kernels();

}  // namespace textopia::rng
