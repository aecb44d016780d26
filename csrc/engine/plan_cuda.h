// A program turned into what a GPU is given: launches of kernels and runs of the graph, in order. Every
// parameter is known before the first step, unless a callback between two evaluations may change some.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <tuple>
#include <variant>
#include <vector>

#include "engine/gpu.h"
#include "engine/launches.h"
#include "engine/loop.h"
#include "engine/network_cuda.h"

namespace textopia::engine {

// Per DENOISE.
std::vector<double> find_guidance(const SampleRequest& request);
// Per DENOISE: whether the negative half runs, too, for guidance or because the program reads it.
std::vector<bool> find_both_runs(const SampleRequest& request);

// The device memory of a request beside the network's, filled before the first step; 0 where a program does
// not need it.
struct LoopMemory {
  std::vector<Pointer> latents;
  Pointer factors = 0;   // float32 [outputs, images]: what RESCALE found
  Pointer bad_step = 0;  // int32: the first step with NaN or infinity
  Pointer levels = 0;    // the noise level of each DENOISE as the graph wants it, level_stride apart
  Pointer denoised = 0;  // for a callback
  Pointer known = 0, mask = 0, known_noise = 0;  // of BLEND
  Pointer seeds = 0;  // uint64 [images]: noise is drawn on the device, beginning with draw next_draw
  Pointer drawn = 0;  // or drawn by the host, one after the other: float32 of the latents' shape
  size_t level_stride = 0;
  uint64_t next_draw = 0;

  bool draws_on_device() const { return seeds != 0; }
};

class Planner;

class PlanCuda {
 public:
  struct Launch {
    const cuda::Kernel* kernel;
    cuda::Grid grid;
    cuda::Parameters parameters;
  };
  struct GraphRun {
    int output;
    bool runs_both;
  };
  // A STEP, and how its denoised estimate is computed where somebody wants it.
  struct Pause {
    const Step* step;
    std::optional<Launch> denoised;
  };
  struct Draw {};  // the host fills LoopMemory::drawn
  using Action = std::variant<Launch, GraphRun, Pause, Draw>;

  // `guidance` and `runs_both`: per DENOISE; they are read when it is planned.
  PlanCuda(const SampleRequest& request, const Gpu& gpu, const NetworkCuda& network, const LoopMemory& memory,
           const std::vector<double>& guidance, const std::vector<bool>& runs_both);
  ~PlanCuda();
  PlanCuda(const PlanCuda&) = delete;  // launches point into it
  PlanCuda& operator=(const PlanCuda&) = delete;

  // Plans the next instruction. Throws invalid_request on sums with more terms than the kernel takes,
  // configuration where a kernel is missing.
  void add_next();
  const std::vector<Action>& actions() const { return actions_; }

 private:
  friend class Planner;

  std::unique_ptr<Planner> planner_;

  // Parameters of the launches; a deque never moves its elements.
  std::tuple<std::deque<CombineLaunch>, std::deque<ClampLaunch>, std::deque<BlendLaunch>,
             std::deque<ThresholdLaunch>, std::deque<RescaleLaunch>, std::deque<LangevinLaunch>>
      launches_;
  std::vector<Action> actions_;
};

}  // namespace textopia::engine
