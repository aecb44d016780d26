#include "engine/loop_cuda.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <limits>
#include <optional>

#include "base/error.h"
#include "engine/launches.h"
#include "engine/loop_parts.h"
#include "engine/network_cuda.h"

namespace textopia::engine {
namespace {

using cuda::DeviceBuffer;

constexpr int32_t kAllFinite = std::numeric_limits<int32_t>::max();
constexpr size_t kAlignment = 256;     // of what kernels are given; they count on 16
constexpr size_t kMostImages = 65535;  // of a launch, one grid row each
// Steps that may wait on the device when somebody watches: one would leave it idle between two.
constexpr size_t kStepsAhead = 2;

size_t align(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

class Loop {
 public:
  Loop(const Denoiser& denoiser, const SampleRequest& request)
      : request_(request),
        program_(*request.program),
        gpu_(*denoiser.gpu()),
        turn_(gpu_.turn()),
        current_(*gpu_.device()),
        control_(true),
        is_guided_(guided_runs(request)),
        network_(denoiser, gpu_, request.shape, request.conditioning, program_.output_count, is_guided_),
        images_(network_.batch().image_count()),
        size_(network_.batch().row_elements()),
        count_(images_ * size_),
        outputs_(static_cast<size_t>(program_.output_count)) {
    check(images_ <= kMostImages && count_ <= static_cast<size_t>(kAllFinite), code::kInvalidRequest,
          "latents: ", images_, " images of ", size_, " elements; on a GPU ", kMostImages,
          " images and 2147483647 elements together are allowed");
    for (int i = 0; i < program_.latent_count; ++i) latents_.push_back(buffer(count_ * sizeof(float)));
    factors_ = buffer(outputs_.size() * images_ * sizeof(float));
    bad_step_ = buffer(sizeof(int32_t));
    upload_levels();
    upload_inpainting();
    upload_noise();
    if (request.on_step) {
      host_latents_ = Buffer<float>(count_);
      if (request.wants_denoised) {
        host_denoised_ = Buffer<float>(count_);
        denoised_ = buffer(count_ * sizeof(float));
      }
    }
    is_watched_ = request.progress || request.limits.cancel || request.limits.deadline;
    if (is_watched_)
      for (size_t i = 0; i < kStepsAhead; ++i) events_.emplace_back(gpu_.device());
    fusion_of_ = find_fusions(program_, static_cast<bool>(request.on_step));
    for (position_ = 0; position_ < program_.instructions.size(); ++position_)
      std::visit([this](const auto& op) { plan(op); }, program_.instructions[position_]);
  }

  // What is enqueued uses the buffers: it has to be through before they go, also after an error.
  ~Loop() {
    try {
      gpu_.stream().wait();
    } catch (const Error&) {
    }
  }

  void run() {
    const CancelGuard guard(request_.limits.cancel, &control_);
    latents_[0].upload(request_.latents, count_ * sizeof(float), gpu_.stream());
    bad_step_.upload(&kAllFinite, sizeof kAllFinite, gpu_.stream());
    check_limits(request_.limits, 0);
    for (const Action& action : actions_) std::visit(*this, action);
    latents_[static_cast<size_t>(program_.result)].download(request_.latents, count_ * sizeof(float),
                                                            gpu_.stream());
    wait_and_check();
    if (request_.progress) request_.progress->steps_done.store(steps_done_, std::memory_order_relaxed);
  }

  struct Launch {
    const cuda::Kernel* kernel;
    cuda::Grid grid;
    cuda::Parameters parameters;  // addresses of an element of launches_
  };
  struct GraphRun {
    int output;
    bool is_guided;
  };
  struct Pause {
    const Step* step;
    std::optional<Launch> denoised;  // writes denoised_
  };
  using Action = std::variant<Launch, GraphRun, Pause>;

  void operator()(const Launch& launch) {
    launch.kernel->launch(gpu_.stream(), launch.grid, launch.parameters);
  }

  void operator()(const GraphRun& run) {
    try {
      network_.run(run.output, run.is_guided, &control_);
    } catch (const Error& error) {
      if (error.code() == std::string_view(code::kCancelled)) fail_cancelled(steps_done_);
      throw;
    }
  }

  void operator()(const Pause& pause) {
    if (request_.on_step) call_back(pause);
    if (is_watched_) {
      const cuda::Event& event = events_[static_cast<size_t>(steps_done_) % kStepsAhead];
      if (static_cast<size_t>(steps_done_) >= kStepsAhead) event.wait();
      gpu_.stream().record(event);
    }
    ++steps_done_;
    if (request_.progress) {
      // Steps that the device has finished, not those that wait for it.
      const int behind = request_.on_step ? 0 : static_cast<int>(kStepsAhead);
      request_.progress->steps_done.store(std::max(steps_done_ - behind, 0), std::memory_order_relaxed);
    }
    check_limits(request_.limits, steps_done_);
  }

 private:
  // How an output register was written, and how it is read.
  struct Output {
    double guidance = 1.0;
    bool is_rescaled = false;
  };

  DeviceBuffer buffer(size_t bytes) { return DeviceBuffer(gpu_.device(), bytes); }
  Pointer latent(int index) const { return latents_[static_cast<size_t>(index)].get(); }

  // All noise levels of the run, so that the COMBINE before a DENOISE can put the next one in place.
  void upload_levels() {
    level_stride_ = align(static_cast<size_t>(network_.level_words()) * 4);
    std::vector<const Denoise*> runs;
    for (const Instruction& op : program_.instructions)
      if (const auto* denoise = std::get_if<Denoise>(&op)) runs.push_back(denoise);
    host_levels_ = Buffer<std::byte>(runs.size() * level_stride_);
    std::fill_n(host_levels_.data(), host_levels_.size(), std::byte{0});
    for (size_t i = 0; i < runs.size(); ++i)
      network_.batch().fill_noise_level(runs[i]->noise_level, host_levels_.data() + i * level_stride_);
    levels_ = buffer(host_levels_.size());
    levels_.upload(host_levels_.data(), host_levels_.size(), gpu_.stream());
  }

  void upload_inpainting() {
    if (!program_.blends()) return;
    const auto put = [&](const float* values, DeviceBuffer& target) {
      target = buffer(count_ * sizeof(float));
      target.upload(values, count_ * sizeof(float), gpu_.stream());
    };
    put(request_.inpainting.known, known_);
    put(request_.inpainting.mask, mask_);
    put(request_.inpainting.noise, known_noise_);
  }

  // A stream that only counts is drawn on the device; others are drawn here, all before the first step.
  void upload_noise() {
    if (!program_.draws_noise()) return;
    rng::NoiseStream::Counter* counter = request_.noise->counter();
    const int draws = program_.count_draws();
    if (counter != nullptr) {
      check(counter->seeds.size() == images_, code::kInvalidRequest, "noise: a draw for ", images_,
            " images was asked of a stream with ", counter->seeds.size(), " seeds, one per image");
      seeds_ = buffer(images_ * sizeof(uint64_t));
      seeds_.upload(counter->seeds.data(), images_ * sizeof(uint64_t), gpu_.stream());
      next_draw_ = counter->next_draw;
      counter->next_draw += static_cast<uint64_t>(draws);
      return;
    }
    draw_stride_ = align(count_ * sizeof(float));
    draws_ = buffer(static_cast<size_t>(draws) * draw_stride_);
    Buffer<float> drawn(count_);
    for (int i = 0; i < draws; ++i) {
      request_.noise->draw(drawn.data(), images_, size_);
      draws_.upload(drawn.data(), count_ * sizeof(float), gpu_.stream(),
                    static_cast<size_t>(i) * draw_stride_);
      gpu_.stream().wait();  // before `drawn` is written again
    }
  }

  bool draws_on_device() const { return seeds_.get() != 0; }

  template <typename Arguments>
  Launch launch(const std::string& kernel, const cuda::Grid& grid, Arguments arguments) {
    auto& kept = std::get<std::deque<Arguments>>(launches_);
    kept.push_back(std::move(arguments));
    return {&gpu_.kernels().get(kernel), grid, kept.back().parameters()};
  }

  cuda::Grid ranges(const char* kernel, size_t count, size_t rows = 1) const {
    const auto elements = static_cast<size_t>(std::max(gpu_.kernels().get(kernel).elements(), 1));
    return {(count + elements - 1) / elements, rows};
  }

  CombineLaunch sum() const {
    CombineLaunch sum;
    sum.factors = factors_.get();
    sum.seeds = seeds_.get();
    sum.bad_step = bad_step_.get();
    sum.step = steps_planned_;
    sum.size = static_cast<int32_t>(size_);
    sum.image_count = static_cast<int32_t>(images_);
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
    sum.input_halves = is_guided_[denoise_index_] ? 2 : 1;
    sum.level = levels_.get() + denoise_index_ * level_stride_;
    sum.network_level = network_.level();
    sum.level_words = network_.level_words();
  }

  Launch finish(const CombineLaunch& sum) {
    const std::string name = text("combine.", network_.dtype(), size_ % 16 == 0 ? ".even" : ".any",
                                  sum.noise_weight != 0.0f ? "_noise" : "");
    return launch(name, ranges(name.c_str(), size_, images_), sum);
  }

  void plan(const Denoise& op) {
    outputs_[static_cast<size_t>(op.dst)] = {guidance_at(request_, denoise_index_), false};
    if (!is_input_ready_) {
      CombineLaunch input = sum();
      add_latent(input, latent(op.src), op.scale_in);
      feed_network(input, 1.0);
      actions_.push_back(finish(input));
    }
    actions_.push_back(GraphRun{op.dst, is_guided_[denoise_index_]});
    is_input_ready_ = false;
    ++denoise_index_;
  }

  void plan(const Combine& op) {
    CombineLaunch sum = this->sum();
    add_terms(sum, op.terms);
    if (op.noise != 0.0 && draws_on_device()) {
      sum.noise_weight = static_cast<float>(op.noise);
      sum.draw = next_draw_++;
    } else if (op.noise != 0.0) {
      add_latent(sum, next_drawn(), op.noise);
    }
    sum.target = latent(op.dst);
    sum.target_size = static_cast<int32_t>(size_);
    const Denoise* fusion = fusion_of_[position_];
    if (fusion != nullptr) feed_network(sum, fusion->scale_in);
    is_input_ready_ = fusion != nullptr;
    actions_.push_back(finish(sum));
  }

  Pointer next_drawn() { return draws_.get() + next_draw_++ * draw_stride_; }

  void plan(const Clamp& op) {
    const ClampLaunch clamp{latent(op.src), latent(op.dst), static_cast<float>(op.low),
                            static_cast<float>(op.high), static_cast<int32_t>(count_)};
    actions_.push_back(launch("clamp.fp32.any", ranges("clamp.fp32.any", count_), clamp));
  }

  void plan(const Threshold& op) {
    // The rank as torch.quantile computes it, in float32.
    const float last = static_cast<float>(size_ - 1);
    const float rank = std::min(static_cast<float>(op.ratio) * last, last), floor = std::floor(rank);
    const auto below = static_cast<int32_t>(std::min(static_cast<size_t>(floor), size_ - 1));
    const ThresholdLaunch threshold{latent(op.src),
                                    latent(op.dst),
                                    below,
                                    static_cast<size_t>(below) == size_ - 1 ? 0.0f : rank - floor,
                                    static_cast<float>(op.high),
                                    static_cast<int32_t>(size_)};
    actions_.push_back(launch("threshold.fp32.any", {images_}, threshold));
  }

  void plan(const Rescale& op) {
    Output& output = outputs_[static_cast<size_t>(op.output)];
    output.is_rescaled = output.guidance != 1.0;
    if (!output.is_rescaled) return;
    const RescaleLaunch rescale{network_.output(op.output),
                                factors_.get(),
                                op.output,
                                output.guidance,
                                op.phi,
                                static_cast<int32_t>(size_),
                                static_cast<int32_t>(images_),
                                static_cast<int32_t>(network_.batch().images_per_run())};
    actions_.push_back(launch(text("rescale.", network_.dtype(), ".any"), {images_}, rescale));
  }

  void plan(const LangevinStep& op) {
    LangevinLaunch step{};
    step.x = latent(op.src);
    step.score = latent(op.score);
    step.target = latent(op.dst);
    step.seeds = seeds_.get();
    if (draws_on_device())
      step.draw = next_draw_++;
    else
      step.noise = next_drawn();
    step.factor = op.factor;
    step.is_batch_norm = op.is_batch_norm ? 1 : 0;
    step.bad_step = bad_step_.get();
    step.step = steps_planned_;
    step.size = static_cast<int32_t>(size_);
    step.image_count = static_cast<int32_t>(images_);
    const char* name = draws_on_device() ? "langevin_step.fp32.noise" : "langevin_step.fp32.given";
    actions_.push_back(launch(name, {images_}, step));
  }

  void plan(const Blend& op) {
    const BlendLaunch blend{latent(op.src),
                            latent(op.dst),
                            mask_.get(),
                            known_.get(),
                            known_noise_.get(),
                            static_cast<float>(op.known),
                            static_cast<float>(op.noise),
                            static_cast<int32_t>(count_)};
    actions_.push_back(launch("blend.fp32.any", ranges("blend.fp32.any", count_), blend));
  }

  void plan(const Step& op) {
    Pause pause{&op, std::nullopt};
    if (denoised_.get() != 0 && !op.denoised.empty()) {
      CombineLaunch sum = this->sum();
      add_terms(sum, op.denoised);
      sum.target = denoised_.get();
      sum.target_size = static_cast<int32_t>(size_);
      pause.denoised = finish(sum);
    }
    actions_.push_back(std::move(pause));
    ++steps_planned_;
  }

  void call_back(const Pause& pause) {
    DeviceBuffer& latents = latents_[static_cast<size_t>(pause.step->x)];
    latents.download(host_latents_.data(), count_ * sizeof(float), gpu_.stream());
    if (pause.denoised) {
      (*this)(*pause.denoised);
      denoised_.download(host_denoised_.data(), count_ * sizeof(float), gpu_.stream());
    }
    wait_and_check();
    request_.on_step(pause.step->index, host_latents_.data(),
                     pause.denoised ? host_denoised_.data() : nullptr);
    latents.upload(host_latents_.data(), count_ * sizeof(float), gpu_.stream());
  }

  void wait_and_check() {
    int32_t bad_step = kAllFinite;
    bad_step_.download(&bad_step, sizeof bad_step, gpu_.stream());
    gpu_.stream().wait();
    if (bad_step != kAllFinite) fail_not_finite(bad_step);
  }

  const SampleRequest& request_;
  const Program& program_;
  const Gpu& gpu_;
  std::lock_guard<std::mutex> turn_;
  cuda::CurrentDevice current_;
  ort::RunControl control_;
  std::vector<bool> is_guided_;  // per DENOISE: both halves run
  NetworkCuda network_;
  size_t images_, size_, count_;
  std::vector<DeviceBuffer> latents_;
  DeviceBuffer factors_, bad_step_, levels_, known_, mask_, known_noise_, seeds_, draws_, denoised_;
  Buffer<std::byte> host_levels_;
  Buffer<float> host_latents_, host_denoised_;
  std::vector<cuda::Event> events_;
  size_t level_stride_ = 0, draw_stride_ = 0;
  bool is_watched_ = false;

  // While planning.
  std::vector<Output> outputs_;            // per output register
  std::vector<const Denoise*> fusion_of_;  // per instruction
  size_t position_ = 0, denoise_index_ = 0;
  uint64_t next_draw_ = 0;
  int steps_planned_ = 0;
  bool is_input_ready_ = false;

  // Made by planning. A deque never moves its elements.
  std::tuple<std::deque<CombineLaunch>, std::deque<ClampLaunch>, std::deque<BlendLaunch>,
             std::deque<ThresholdLaunch>, std::deque<RescaleLaunch>, std::deque<LangevinLaunch>>
      launches_;
  std::vector<Action> actions_;
  int steps_done_ = 0;
};

}  // namespace

void sample_on_gpu(const Denoiser& denoiser, const SampleRequest& request) { Loop(denoiser, request).run(); }

}  // namespace textopia::engine
