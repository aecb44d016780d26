#include "cpu/plan.h"

#include <unistd.h>

#include <algorithm>
#include <limits>

#include "cpu/panels.h"

namespace textopia::cpu {
namespace {

constexpr int64_t kStepBytes = kStepElements * 2;
constexpr int64_t kRowBytes = kStepChannels * 2;  // of one channel block

// Seconds of the slowest thread. A task packs its slab, takes each weight once from the shared cache or from
// memory, and reads the slab once per panel: from the core's own cache if it fits.
double seconds_of(const ProductShape& shape, const Machine& machine, int64_t rows, int64_t panels) {
  const double slab_bytes =
      static_cast<double>(shape.planes * (rows + 2 * shape.halo) * shape.blocks * kRowBytes);
  const double steps = static_cast<double>(shape.blocks * shape.taps * shape.phases);
  const double flops = 2.0 * static_cast<double>(rows * panels) * kStepElements * steps;
  const double weight_bytes = steps * static_cast<double>(panels * kStepBytes);
  double task = flops / machine.flops;
  task += slab_bytes / machine.near_bytes;
  // The weights come while the units work; what they cannot hide is what costs.
  task = std::max(task, weight_bytes / machine.near_bytes) + 0.1 * weight_bytes / machine.near_bytes;
  if (slab_bytes > 0.7 * static_cast<double>(machine.l2_bytes))
    task += 0.5 * slab_bytes * static_cast<double>(panels * shape.phases) / machine.near_bytes;
  const int64_t tasks = ceil_div(shape.rows, rows) * ceil_div(shape.panels, panels);
  return static_cast<double>(ceil_div(tasks, machine.threads)) * (task + 2e-6);
}

}  // namespace

Machine Machine::here(MatrixUnit unit, int threads) {
  static const int64_t l1 = sysconf(_SC_LEVEL1_DCACHE_SIZE), l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
  Machine machine;
  machine.threads = threads;
  machine.l2_bytes = l2 > 0 ? l2 : 1 << 20;
  // Tiles want one operand from the nearest cache; registers are content with the next one.
  const bool is_amx = unit == MatrixUnit::kAmxBf16;
  machine.chunk_bytes = is_amx ? (l1 > 0 ? l1 : 32 << 10) * 3 / 4 : machine.l2_bytes / 10;
  machine.flops = is_amx ? 2e12 : 4e11;
  machine.near_bytes = 1.2e10;
  return machine;
}

Plan plan_product(const ProductShape& shape, const Machine& machine) {
  Plan plan;
  // Whole blocks of channels, so that all taps find the activations in the nearest cache.
  const int64_t chunk_blocks =
      std::clamp<int64_t>(machine.chunk_bytes / (shape.taps * kStepBytes), 1, shape.blocks);
  plan.chunk_steps = static_cast<int>(chunk_blocks * shape.taps);
  double best = std::numeric_limits<double>::infinity();
  for (int64_t rows = 32; rows <= kMostRows; rows *= 2) {
    for (int64_t parts = 1; parts <= shape.panels; ++parts) {
      const int64_t panels = ceil_div(shape.panels, parts);
      if (parts > 1 && panels == ceil_div(shape.panels, parts - 1)) continue;
      // Ranges of equal length instead of a short last one.
      const int64_t equal = ceil_div(shape.rows, ceil_div(shape.rows, rows));
      const double seconds = seconds_of(shape, machine, equal, panels);
      if (seconds >= best) continue;
      best = seconds;
      plan.rows = equal;
      plan.panels = panels;
    }
    if (rows >= shape.rows) break;
  }
  return plan;
}

}  // namespace textopia::cpu
