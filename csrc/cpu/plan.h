// How a product is cut into tasks and passes: a small model of the caches and of what moves between them.
#pragma once

#include <compare>
#include <cstdint>

#include "base/isa.h"

namespace textopia::cpu {

struct Machine {
  int threads = 1;
  int64_t l2_bytes = 0;     // of one core
  int64_t chunk_bytes = 0;  // of weights that a unit reads again and again without waiting
  double flops = 0;         // per second and core, bfloat16
  double near_bytes = 0;    // per second and core, from the cache that all cores share

  // This machine with `unit`; caches are what the C library knows of them.
  static Machine here(MatrixUnit unit, int threads);
};

struct ProductShape {
  int64_t rows = 0;    // all, of which a task takes a range
  int64_t planes = 1;  // copies of the rows in a slab
  int64_t halo = 0;    // rows that a slab needs before and after the range
  int64_t blocks = 1;  // of 32 channels, in int8 of 64 (their steps cost the same)
  int taps = 1;        // steps per block
  int64_t panels = 1;  // of 32 columns
  int phases = 1;      // products of one slab

  auto operator<=>(const ProductShape&) const = default;
};

inline constexpr int64_t kMostRows = 4096;  // of a task: its slab is an array of one thread

struct Plan {
  int64_t rows = 0;     // of a task, up to kMostRows
  int64_t panels = 0;   // of a task
  int chunk_steps = 0;  // between reads and writes of the sums

  bool operator==(const Plan&) const = default;
};

Plan plan_product(const ProductShape& shape, const Machine& machine);

// Where plans come from when they are not only computed. No plan changes a bit of a result. Called from many
// threads at once.
class PlanSource {
 public:
  virtual ~PlanSource() = default;
  virtual Plan plan(const ProductShape& shape, const Machine& machine) = 0;
  // A product has run with the plan that it was given.
  virtual void took(const ProductShape& shape, const Plan& plan, double seconds) = 0;
};

}  // namespace textopia::cpu
