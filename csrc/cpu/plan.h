// How a product is cut into tasks and passes: a small model of the caches and of what moves between them.
#pragma once

#include <cstdint>

#include "base/isa.h"

namespace textopia::cpu {

struct Machine {
  int threads = 1;
  int64_t l2_bytes = 0;     // of one core
  int64_t chunk_bytes = 0;  // of weights that a unit reads again and again without waiting
  double flops = 0;         // per second and core, bfloat16
  double near_bytes = 0;    // per second and core, from the cache that all cores share

  // This machine with `unit`. Threads are usable_cpus(); caches are what the C library knows of them.
  static Machine here(MatrixUnit unit);
};

struct ProductShape {
  int64_t rows = 0;    // all, of which a task takes a range
  int64_t planes = 1;  // copies of the rows in a slab
  int64_t halo = 0;    // rows that a slab needs before and after the range
  int64_t blocks = 1;  // of 32 channels, in int8 of 64 (their steps cost the same)
  int taps = 1;        // steps per block
  int64_t panels = 1;  // of 32 columns
  int phases = 1;      // products of one slab
};

struct Plan {
  int64_t rows = 0;     // of a task
  int64_t panels = 0;   // of a task
  int chunk_steps = 0;  // between reads and writes of the sums
};

Plan plan_product(const ProductShape& shape, const Machine& machine);

}  // namespace textopia::cpu
