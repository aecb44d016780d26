#include "engine/loop_parts.h"

#include "base/error.h"

namespace textopia::engine {

std::vector<const Denoise*> find_fusions(const Program& program, bool has_callback) {
  const auto& code = program.instructions;
  std::vector<const Denoise*> fusion_of(code.size(), nullptr);
  if (has_callback) return fusion_of;
  for (size_t i = 0; i < code.size(); ++i) {
    const auto* denoise = std::get_if<Denoise>(&code[i]);
    if (!denoise) continue;
    size_t before = i;
    while (before > 0 && std::holds_alternative<Step>(code[before - 1])) --before;
    if (before == 0) continue;
    const auto* combine = std::get_if<Combine>(&code[before - 1]);
    if (combine && combine->dst == denoise->src) fusion_of[before - 1] = denoise;
  }
  return fusion_of;
}

void check_limits(const Limits& limits, int steps_done) {
  if (limits.cancel && limits.cancel->is_cancelled()) fail_cancelled(steps_done);
  if (limits.interrupt && limits.interrupt->exchange(false)) limits.on_interrupt();
  if (limits.deadline && Clock::now() >= *limits.deadline)
    throw Error(code::kDeadline, text("denoising: the deadline passed after ", steps_done, " steps"),
                {{"stage", "denoising"}, {"steps_done", std::to_string(steps_done)}});
}

void fail_cancelled(int steps_done) {
  throw Error(code::kCancelled, text("denoising: cancelled after ", steps_done, " steps"),
              {{"stage", "denoising"}, {"steps_done", std::to_string(steps_done)}});
}

void fail_not_finite(int step) {
  throw Error(code::kNumerical,
              text("denoising: NaN or infinity in the latents at step ", step, "; the graph, the ",
                   "conditioning or the start is not finite, or the step size is too large"),
              {{"stage", "denoising"}, {"step", std::to_string(step)}});
}

}  // namespace textopia::engine
