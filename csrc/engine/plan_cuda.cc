#include "engine/plan_cuda.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "engine/loop_parts.h"

namespace textopia::engine {

std::vector<double> find_guidance(const SampleRequest& request) {
  if (request.guidance.size() != 1) return request.guidance;
  return std::vector<double>(static_cast<size_t>(request.program->count_denoise()), request.guidance[0]);
}

std::vector<bool> find_both_runs(const SampleRequest& request) {
  std::vector<bool> runs_both = request.program->reads_uncond();
  const std::vector<double> guidance = find_guidance(request);
  for (size_t i = 0; i < runs_both.size(); ++i) runs_both[i] = runs_both[i] || is_guided(guidance[i]);
  return runs_both;
}

class Planner {
 public:
  using Launch = PlanCuda::Launch;
  using GraphRun = PlanCuda::GraphRun;
  using Pause = PlanCuda::Pause;

  Planner(const SampleRequest& request, const Gpu& gpu, const NetworkCuda& network, const LoopMemory& memory,
          const std::vector<double>& guidance, const std::vector<bool>& runs_both, PlanCuda& plan)
      : request_(request),
        gpu_(gpu),
        network_(network),
        memory_(memory),
        guidance_(guidance),
        runs_both_(runs_both),
        plan_(plan),
        outputs_(static_cast<size_t>(request.program->output_count)),
        fusion_of_(find_fusions(*request.program, request.on_step || request.on_evaluation)),
        next_draw_(memory.next_draw) {}

  void run_next() {
    std::visit([this](const auto& op) { plan(op); }, request_.program->instructions[position_]);
    ++position_;
  }

 private:
  // How an output register was written, and how it is read.
  struct Output {
    double guidance = 1.0;
    bool is_rescaled = false;
  };

  size_t images() const { return network_.batch().image_count(); }
  size_t size() const { return network_.batch().row_elements(); }
  size_t count() const { return images() * size(); }
  Pointer latent(int index) const { return memory_.latents[static_cast<size_t>(index)]; }

  template <typename Arguments>
  Launch launch(const std::string& kernel, const cuda::Grid& grid, Arguments arguments) {
    auto& kept = std::get<std::deque<Arguments>>(plan_.launches_);
    kept.push_back(std::move(arguments));
    return {&gpu_.kernels().get(kernel), grid, kept.back().parameters()};
  }

  cuda::Grid ranges(const char* kernel, size_t count, size_t rows = 1) const {
    const auto elements = static_cast<size_t>(std::max(gpu_.kernels().get(kernel).elements(), 1));
    return {(count + elements - 1) / elements, rows};
  }

  CombineLaunch sum() const {
    CombineLaunch sum;
    sum.factors = memory_.factors;
    sum.seeds = memory_.seeds;
    sum.bad_step = memory_.bad_step;
    sum.step = steps_planned_;
    sum.size = static_cast<int32_t>(size());
    sum.image_count = static_cast<int32_t>(images());
    sum.images_per_run = static_cast<int32_t>(network_.batch().images_per_run());
    sum.halves = network_.batch().has_negative() ? 2 : 1;
    return sum;
  }

  void add_latent(CombineLaunch& sum, Pointer latent, double weight) const {
    if (weight == 0.0) return;
    const auto slot = std::find(sum.latents.begin(), sum.latents.end(), Pointer{0});
    check(slot != sum.latents.end(), code::kInvalidRequest, "program: a sum of more than ", kCombineLatents,
          " latents and draws; on a GPU ", kCombineLatents, " are allowed");
    *slot = latent;
    sum.latent_weights[static_cast<size_t>(slot - sum.latents.begin())] = static_cast<float>(weight);
  }

  void add_output(CombineLaunch& sum, const Term& term) const {
    const auto free = std::find(sum.outputs.begin(), sum.outputs.end(), Pointer{0});
    check(free != sum.outputs.end(), code::kInvalidRequest, "program: a sum of more than ", kCombineOutputs,
          " network outputs; on a GPU ", kCombineOutputs, " are allowed");
    const auto slot = static_cast<size_t>(free - sum.outputs.begin());
    const Output& output = outputs_[static_cast<size_t>(term.index)];
    const bool is_whole = term.bank == Bank::kOutput;
    const double g = is_whole ? output.guidance : 0.0;
    sum.outputs[slot] = network_.output(term.index);
    sum.positive_weights[slot] = static_cast<float>(term.weight * g);
    sum.negative_weights[slot] = static_cast<float>(term.weight * (1.0 - g));
    if (is_whole && output.is_rescaled) sum.factor_rows[slot] = term.index;
  }

  void add_terms(CombineLaunch& sum, const std::vector<Term>& terms) const {
    for (const Term& term : terms) {
      if (term.bank == Bank::kLatent)
        add_latent(sum, latent(term.index), term.weight);
      else
        add_output(sum, term);
    }
  }

  // The sum is also, scaled, the input of the next run of the graph, whose noise level goes along.
  void feed_network(CombineLaunch& sum, double scale) const {
    sum.network_input = network_.input();
    sum.scale = static_cast<float>(scale);
    sum.input_halves = runs_both_[denoise_index_] ? 2 : 1;
    if (network_.has_time_features()) return;
    sum.level = memory_.levels + denoise_index_ * memory_.level_stride;
    sum.network_level = network_.level();
    sum.level_words = network_.level_words();
  }

  Launch finish(const CombineLaunch& sum) {
    const std::string name = text("combine.", network_.dtype(), size() % 16 == 0 ? ".even" : ".any",
                                  sum.noise_weight != 0.0f ? "_noise" : "");
    return launch(name, ranges(name.c_str(), size(), images()), sum);
  }

  void plan(const Denoise& op) {
    outputs_[static_cast<size_t>(op.dst)] = {guidance_[denoise_index_], false};
    if (!is_input_ready_) {
      CombineLaunch input = sum();
      add_latent(input, latent(op.src), op.scale_in);
      feed_network(input, 1.0);
      plan_.actions_.push_back(finish(input));
    }
    plan_.actions_.push_back(GraphRun{op.dst, runs_both_[denoise_index_]});
    is_input_ready_ = false;
    ++denoise_index_;
  }

  void plan(const Combine& op) {
    CombineLaunch sum = this->sum();
    add_terms(sum, op.terms);
    if (op.noise != 0.0 && memory_.draws_on_device()) {
      sum.noise_weight = static_cast<float>(op.noise);
      sum.draw = next_draw_++;
    } else if (op.noise != 0.0) {
      add_latent(sum, drawn(), op.noise);
    }
    sum.target = latent(op.dst);
    sum.target_size = static_cast<int32_t>(size());
    const Denoise* fusion = fusion_of_[position_];
    if (fusion != nullptr) feed_network(sum, fusion->scale_in);
    is_input_ready_ = fusion != nullptr;
    plan_.actions_.push_back(finish(sum));
  }

  Pointer drawn() {
    plan_.actions_.push_back(PlanCuda::Draw{});
    return memory_.drawn;
  }

  void plan(const Clamp& op) {
    const ClampLaunch clamp{latent(op.src), latent(op.dst), static_cast<float>(op.low),
                            static_cast<float>(op.high), static_cast<int32_t>(count())};
    plan_.actions_.push_back(launch("clamp.fp32.any", ranges("clamp.fp32.any", count()), clamp));
  }

  void plan(const Threshold& op) {
    // The rank as torch.quantile computes it, in float32.
    const float last = static_cast<float>(size() - 1);
    const float rank = std::min(static_cast<float>(op.ratio) * last, last), floor = std::floor(rank);
    const auto below = static_cast<int32_t>(std::min(static_cast<size_t>(floor), size() - 1));
    const ThresholdLaunch threshold{latent(op.src),
                                    latent(op.dst),
                                    below,
                                    static_cast<size_t>(below) == size() - 1 ? 0.0f : rank - floor,
                                    static_cast<float>(op.high),
                                    static_cast<int32_t>(size())};
    plan_.actions_.push_back(launch("threshold.fp32.any", {images()}, threshold));
  }

  void plan(const Rescale& op) {
    Output& output = outputs_[static_cast<size_t>(op.output)];
    output.is_rescaled = is_guided(output.guidance);
    if (!output.is_rescaled) return;
    const RescaleLaunch rescale{network_.output(op.output),
                                memory_.factors,
                                op.output,
                                output.guidance,
                                op.phi,
                                static_cast<int32_t>(size()),
                                static_cast<int32_t>(images()),
                                static_cast<int32_t>(network_.batch().images_per_run())};
    plan_.actions_.push_back(launch(text("rescale.", network_.dtype(), ".any"), {images()}, rescale));
  }

  void plan(const LangevinStep& op) {
    LangevinLaunch step{};
    step.x = latent(op.src);
    step.score = latent(op.score);
    step.target = latent(op.dst);
    step.seeds = memory_.seeds;
    if (memory_.draws_on_device())
      step.draw = next_draw_++;
    else
      step.noise = drawn();
    step.factor = op.factor;
    step.is_batch_norm = op.is_batch_norm ? 1 : 0;
    step.bad_step = memory_.bad_step;
    step.step = steps_planned_;
    step.size = static_cast<int32_t>(size());
    step.image_count = static_cast<int32_t>(images());
    const char* name = memory_.draws_on_device() ? "langevin_step.fp32.noise" : "langevin_step.fp32.given";
    plan_.actions_.push_back(launch(name, {images()}, step));
  }

  void plan(const Blend& op) {
    const BlendLaunch blend{latent(op.src),
                            latent(op.dst),
                            memory_.mask,
                            memory_.known,
                            memory_.known_noise,
                            static_cast<float>(op.known),
                            static_cast<float>(op.noise),
                            static_cast<int32_t>(count())};
    plan_.actions_.push_back(launch("blend.fp32.any", ranges("blend.fp32.any", count()), blend));
  }

  void plan(const Step& op) {
    Pause pause{&op, std::nullopt};
    if (memory_.denoised != 0 && !op.denoised.empty()) {
      CombineLaunch sum = this->sum();
      add_terms(sum, op.denoised);
      sum.target = memory_.denoised;
      sum.target_size = static_cast<int32_t>(size());
      pause.denoised = finish(sum);
    }
    plan_.actions_.push_back(std::move(pause));
    ++steps_planned_;
  }

  const SampleRequest& request_;
  const Gpu& gpu_;
  const NetworkCuda& network_;
  const LoopMemory& memory_;
  const std::vector<double>& guidance_;
  const std::vector<bool>& runs_both_;
  PlanCuda& plan_;
  std::vector<Output> outputs_;            // per output register
  std::vector<const Denoise*> fusion_of_;  // per instruction
  size_t position_ = 0, denoise_index_ = 0;
  uint64_t next_draw_;
  int steps_planned_ = 0;
  bool is_input_ready_ = false;
};

PlanCuda::PlanCuda(const SampleRequest& request, const Gpu& gpu, const NetworkCuda& network,
                   const LoopMemory& memory, const std::vector<double>& guidance,
                   const std::vector<bool>& runs_both)
    : planner_(std::make_unique<Planner>(request, gpu, network, memory, guidance, runs_both, *this)) {}

PlanCuda::~PlanCuda() = default;

void PlanCuda::add_next() { planner_->run_next(); }

}  // namespace textopia::engine
