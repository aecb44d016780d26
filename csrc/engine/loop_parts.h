// What the loops of all devices share: what is fused, when a run has to end.
#pragma once

#include <vector>

#include "engine/loop.h"

namespace textopia::engine {

// Guidance 1 is the positive half itself, which then runs alone.
constexpr bool is_guided(double guidance) { return guidance != 1.0; }

// Per instruction: the DENOISE whose scaled input this COMBINE writes in the same pass, or null. A callback
// may change the latents between the two, so nothing is fused when there is one.
std::vector<const Denoise*> find_fusions(const Program& program, bool has_callback);

// Throws cancelled, deadline_exceeded, or what on_interrupt throws.
void check_limits(const Limits& limits, int steps_done);

[[noreturn]] void fail_cancelled(int steps_done);
[[noreturn]] void fail_not_finite(int step);

}  // namespace textopia::engine
