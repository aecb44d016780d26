#include "engine/loop_cuda.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "engine/loop_parts.h"
#include "engine/plan_cuda.h"

namespace textopia::engine {
namespace {

using cuda::DeviceBuffer;

constexpr int32_t kAllFinite = std::numeric_limits<int32_t>::max();
constexpr size_t kAlignment = 256;     // of what kernels are given; they count on 16
constexpr size_t kMostImages = 65535;  // of a launch, one grid row each
// Steps that may wait on the device when somebody watches: one would leave it idle between two.
constexpr size_t kStepsAhead = 2;
// Draws of the host that may wait on the device: one is uploaded while the next is drawn.
constexpr size_t kDrawsAhead = 2;

size_t align(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

class Loop : private Steering {
 public:
  Loop(const Denoiser& denoiser, const SampleRequest& request)
      : request_(request),
        program_(*request.program),
        gpu_(*denoiser.gpu()),
        turn_(gpu_.turn()),
        current_(*gpu_.device()),
        control_(true),
        guidance_(find_guidance(request)),
        runs_both_(find_both_runs(request)),
        denoiser_(denoiser),
        owned_network_(take_network()),
        network_(*owned_network_),
        images_(network_.batch().image_count()),
        size_(network_.batch().row_elements()),
        count_(images_ * size_) {
    check(images_ <= kMostImages && count_ <= static_cast<size_t>(kAllFinite), code::kInvalidRequest,
          "latents: ", images_, " images of ", size_, " elements; on a GPU ", kMostImages,
          " images and 2147483647 elements together are allowed");
    for (int i = 0; i < program_.latent_count; ++i) memory_.latents.push_back(allocate(latent_bytes()));
    memory_.factors = allocate(static_cast<size_t>(program_.output_count) * images_ * sizeof(float));
    memory_.bad_step = allocate(sizeof kAllFinite);
    if (request.device_start != 0)
      cuda::copy(gpu_.stream(), memory_.latents[0], request.device_start, latent_bytes());
    else
      upload(memory_.latents[0], request.latents, latent_bytes());
    upload(memory_.bad_step, &kAllFinite, sizeof kAllFinite);
    upload_levels(denoiser);
    if (program_.blends()) {
      memory_.known = uploaded(request.inpainting.known);
      memory_.mask = uploaded(request.inpainting.mask);
      memory_.known_noise = uploaded(request.inpainting.noise);
    }
    prepare_noise();
    if (request.on_step || request.on_evaluation) {
      host_latents_ = cuda::PinnedBuffer(gpu_.device(), latent_bytes());
      if (request.wants_denoised) {
        host_denoised_ = cuda::PinnedBuffer(gpu_.device(), latent_bytes());
        memory_.denoised = allocate(latent_bytes());
      }
    }
    is_watched_ = request.progress || request.limits.cancel || request.limits.deadline;
    if (is_watched_)
      for (size_t i = 0; i < kStepsAhead; ++i) events_.emplace_back(gpu_.device());
  }

  // What is enqueued uses the memory: it has to be through before that goes, also after an error.
  ~Loop() {
    try {
      gpu_.stream().wait();
    } catch (const Error&) {
    }
  }

  void run() {
    PlanCuda plan(request_, gpu_, network_, memory_, guidance_, runs_both_);
    const CancelGuard guard(request_.limits.cancel, &control_);
    size_t done = 0;
    const auto execute = [&] {
      for (; done < plan.actions().size(); ++done) std::visit(*this, plan.actions()[done]);
    };
    if (!request_.on_evaluation)
      for (size_t i = 0; i < program_.instructions.size(); ++i) plan.add_next();
    check_limits(request_.limits, 0);
    execute();
    if (request_.on_evaluation) {
      for (const Instruction& instruction : program_.instructions) {
        const auto* denoise = std::get_if<Denoise>(&instruction);
        if (denoise != nullptr && evaluations_ > 0) show(denoise->src);
        plan.add_next();
        execute();
      }
      if (evaluations_ > 0) show(program_.result);
    }
    const Pointer sample = memory_.latents[static_cast<size_t>(program_.result)];
    if (request_.device_sample != 0)
      cuda::copy(gpu_.stream(), request_.device_sample, sample, latent_bytes());
    else
      download(request_.latents, sample);
    wait_and_check();
    if (denoiser_.session()->graph_capture().is_on) denoiser_.kept_network() = owned_network_;
    if (request_.progress) request_.progress->steps_done.store(steps_done_, std::memory_order_relaxed);
  }

  void operator()(const PlanCuda::Launch& launch) {
    launch.kernel->launch(gpu_.stream(), launch.grid, launch.parameters);
  }

  void operator()(const PlanCuda::GraphRun& run) {
    if (network_.has_time_features())
      cuda::copy(gpu_.stream(), network_.level(),
                 memory_.levels + static_cast<size_t>(evaluations_) * memory_.level_stride,
                 static_cast<size_t>(network_.level_words()) * 4);
    ++evaluations_;
    try {
      network_.run(run.output, run.runs_both, &control_);
    } catch (const Error& error) {
      if (error.code() == std::string_view(code::kCancelled)) fail_cancelled(steps_done_);
      throw;
    }
  }

  // The host draws while the device is at the steps before.
  void operator()(const PlanCuda::Draw&) {
    const cuda::Event& passed = draw_events_[draws_ % kDrawsAhead];
    float* drawn = host_draws_[draws_ % kDrawsAhead].floats();
    if (draws_++ >= kDrawsAhead) passed.wait();
    request_.noise->draw(drawn, images_, size_);
    upload(memory_.drawn, drawn, latent_bytes());
    gpu_.stream().record(passed);
  }

  void operator()(const PlanCuda::Pause& pause) {
    if (request_.on_step) call_back(pause);
    if (is_watched_) {
      const auto step = static_cast<size_t>(steps_done_);
      const cuda::Event& event = events_[step % kStepsAhead];
      if (step >= kStepsAhead) event.wait();
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
  size_t latent_bytes() const { return count_ * sizeof(float); }

  Pointer allocate(size_t bytes) {
    buffers_.emplace_back(gpu_.device(), bytes);
    return buffers_.back().get();
  }

  void upload(Pointer target, const void* source, size_t bytes) {
    cuda::upload(gpu_.stream(), target, source, bytes);
  }
  void download(void* target, Pointer source) {
    cuda::download(gpu_.stream(), target, source, latent_bytes());
  }

  // Values of the latents' shape.
  Pointer uploaded(const float* values) {
    const Pointer target = allocate(latent_bytes());
    upload(target, values, latent_bytes());
    return target;
  }

  // All noise levels of the run, so that the COMBINE before a DENOISE can put the next one in place.
  void upload_levels(const Denoiser& denoiser) {
    const NoiseTable levels(denoiser, program_.noise_levels());
    memory_.level_stride = align(static_cast<size_t>(network_.level_words()) * 4);
    host_levels_ = Buffer<std::byte>(runs_both_.size() * memory_.level_stride);
    std::fill_n(host_levels_.data(), host_levels_.size(), std::byte{0});
    std::byte* row = host_levels_.data();
    for (size_t i = 0; i < runs_both_.size(); ++i, row += memory_.level_stride)
      network_.batch().fill_noise_level(levels, i, row);
    memory_.levels = allocate(host_levels_.size());
    upload(memory_.levels, host_levels_.data(), host_levels_.size());
  }

  // A stream that only counts is drawn on the device; others are drawn by the host, each before its step.
  void prepare_noise() {
    const auto draws = static_cast<size_t>(program_.count_draws());
    if (draws == 0) return;
    if (rng::NoiseStream::Counter* counter = request_.noise->counter()) {
      check(counter->seeds.size() == images_, code::kInvalidRequest, "noise: a draw for ", images_,
            " images was asked of a stream with ", counter->seeds.size(), " seeds, one per image");
      memory_.seeds = allocate(images_ * sizeof(uint64_t));
      upload(memory_.seeds, counter->seeds.data(), images_ * sizeof(uint64_t));
      memory_.next_draw = counter->next_draw;
      counter->next_draw += draws;
      return;
    }
    memory_.drawn = allocate(latent_bytes());
    for (size_t i = 0; i < std::min(draws, kDrawsAhead); ++i) {
      host_draws_.emplace_back(gpu_.device(), latent_bytes());
      draw_events_.emplace_back(gpu_.device());
    }
  }

  // The last request's where that fits; a request that fails leaves none behind.
  std::shared_ptr<NetworkCuda> take_network() const {
    Batch batch(denoiser_, request_.shape, request_.conditioning, planned_runs());
    std::shared_ptr<NetworkCuda> kept = std::exchange(denoiser_.kept_network(), nullptr);
    if (kept != nullptr && kept->fits(batch, program_.output_count)) {
      kept->load(std::move(batch));
      return kept;
    }
    kept.reset();  // its memory may be needed
    return std::make_shared<NetworkCuda>(denoiser_, gpu_, std::move(batch), program_.output_count);
  }

  // The runs that bindings are made for: a callback may turn guidance off at any of them.
  std::vector<bool> planned_runs() const {
    std::vector<bool> runs = runs_both_;
    if (request_.on_evaluation) runs.push_back(false);
    return runs;
  }

  // The end of an evaluation, for whoever looks.
  void show(int index) {
    const Pointer latents = memory_.latents[static_cast<size_t>(index)];
    download(host_latents_.floats(), latents);
    wait_and_check();
    request_.on_evaluation(evaluations_ - 1, host_latents_.floats(), *this);
    upload(latents, host_latents_.floats(), latent_bytes());
    check_limits(request_.limits, steps_done_);
  }

  void set_guidance(double guidance) override {
    check(std::isfinite(guidance), code::kInvalidRequest, "guidance: got ", guidance, "; it must be finite");
    check(!is_guided(guidance) || network_.batch().has_negative(), code::kInvalidRequest, "guidance: got ",
          guidance, " in mid-run, but the run began without a negative half");
    const std::vector<bool> reads_uncond = program_.reads_uncond();
    for (auto i = static_cast<size_t>(evaluations_); i < guidance_.size(); ++i) {
      guidance_[i] = guidance;
      runs_both_[i] = reads_uncond[i] || is_guided(guidance);
    }
  }

  // What a callback gives lives until it has returned, so its copies are waited for.
  void set_conditioning(const Conditioning& item) override {
    network_.replace(item);
    gpu_.stream().wait();
  }

  void set_mask(const float* mask) override {
    if (memory_.mask == 0) return;  // nothing reads it
    upload(memory_.mask, mask, latent_bytes());
    gpu_.stream().wait();
  }

  void call_back(const PlanCuda::Pause& pause) {
    const Pointer latents = memory_.latents[static_cast<size_t>(pause.step->x)];
    download(host_latents_.floats(), latents);
    if (pause.denoised) {
      (*this)(*pause.denoised);
      download(host_denoised_.floats(), memory_.denoised);
    }
    wait_and_check();
    request_.on_step(pause.step->index, host_latents_.floats(),
                     pause.denoised ? host_denoised_.floats() : nullptr);
    upload(latents, host_latents_.floats(), latent_bytes());
  }

  void wait_and_check() {
    int32_t bad_step = kAllFinite;
    cuda::download(gpu_.stream(), &bad_step, memory_.bad_step, sizeof bad_step);
    gpu_.stream().wait();
    if (bad_step != kAllFinite) fail_not_finite(bad_step);
  }

  const SampleRequest& request_;
  const Program& program_;
  const Gpu& gpu_;
  std::lock_guard<std::mutex> turn_;
  cuda::CurrentDevice current_;
  ort::RunControl control_;
  std::vector<double> guidance_;  // per DENOISE
  std::vector<bool> runs_both_;   // the same: both halves run
  const Denoiser& denoiser_;
  std::shared_ptr<NetworkCuda> owned_network_;
  NetworkCuda& network_;
  size_t images_, size_, count_;
  std::vector<DeviceBuffer> buffers_;
  LoopMemory memory_;  // views of them
  Buffer<std::byte> host_levels_;
  cuda::PinnedBuffer host_latents_, host_denoised_;
  std::vector<cuda::PinnedBuffer> host_draws_;
  std::vector<cuda::Event> events_, draw_events_;
  bool is_watched_ = false;
  int steps_done_ = 0, evaluations_ = 0;
  size_t draws_ = 0;
};

}  // namespace

void sample_on_gpu(const Denoiser& denoiser, const SampleRequest& request) { Loop(denoiser, request).run(); }

}  // namespace textopia::engine
