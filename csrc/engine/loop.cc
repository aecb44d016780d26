#include "engine/loop.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "cpu/threshold.h"
#include "engine/loop_cuda.h"
#include "engine/loop_parts.h"

namespace textopia::engine {
namespace {

class Loop : private Steering {
 public:
  Loop(const Denoiser& denoiser, const SampleRequest& request)
      : request_(request),
        program_(*request.program),
        reads_uncond_(program_.reads_uncond()),
        network_(denoiser, request.shape, request.conditioning, program_.output_count,
                 program_.noise_levels(), planned_runs()),
        inpainting_(request.inpainting),
        count_(element_count(request.shape)),
        outputs_(static_cast<size_t>(program_.output_count)) {
    for (int i = 0; i < program_.latent_count; ++i) latents_.emplace_back(count_);
    if (program_.draws_noise()) noise_ = Buffer<float>(count_);
    if (program_.thresholds()) magnitudes_ = Buffer<uint32_t>(network_.row_elements());
    if (program_.rescales()) find_images();
    if (request.wants_denoised) denoised_ = Buffer<float>(count_);
    fusion_of_ = find_fusions(program_, request.on_step || request.on_evaluation);
  }

  void run() {
    const CancelGuard guard(request_.limits.cancel, &control_);
    std::memcpy(latents_[0].data(), request_.latents, count_ * sizeof(float));
    check_limits(request_.limits, steps_done_);
    for (position_ = 0; position_ < program_.instructions.size(); ++position_)
      std::visit(*this, program_.instructions[position_]);
    if (denoise_index_ > 0) show(latents_[program_.result].data());
    std::memcpy(request_.latents, latents_[program_.result].data(), count_ * sizeof(float));
  }

  void operator()(const Denoise& op) {
    if (denoise_index_ > 0) show(latents_[op.src].data());
    Output& output = outputs_[op.dst];
    const bool is_both = runs_both(denoise_index_);
    const size_t evaluation = denoise_index_++;
    output.guidance = guidance_at(evaluation);
    output.is_rescaled = false;
    if (!is_input_ready_) write_input(op, is_both);
    is_input_ready_ = false;
    try {
      network_.run(op.dst, is_both, evaluation, &control_);
    } catch (const Error& error) {
      if (error.code() == std::string_view(code::kCancelled)) fail_cancelled(steps_done_);
      throw;
    }
  }

  void operator()(const Combine& op) {
    if (op.noise != 0.0) draw();
    combine(op.terms, op.noise, latents_[op.dst].data(), fusion_of_[position_]);
    is_input_ready_ = fusion_of_[position_] != nullptr;
  }

  void operator()(const Clamp& op) {
    const float low = static_cast<float>(op.low), high = static_cast<float>(op.high);
    const float* source = latents_[op.src].data();
    float* target = latents_[op.dst].data();
    for (size_t i = 0; i < count_; ++i) target[i] = std::min(std::max(source[i], low), high);
  }

  void operator()(const Threshold& op) {
    const size_t size = network_.row_elements();
    for (size_t offset = 0; offset < count_; offset += size)
      cpu::threshold(latents_[op.src].data() + offset, latents_[op.dst].data() + offset, size,
                     static_cast<float>(op.ratio), static_cast<float>(op.high), magnitudes_.data());
  }

  void operator()(const Rescale& op) {
    Output& output = outputs_[op.output];
    output.is_rescaled = is_guided(output.guidance);
    if (!output.is_rescaled) return;
    for (const Group& image : images_) {
      const double ratio = cpu::deviation_ratio(network_.output(op.output, image.negative_row),
                                                network_.output(op.output, image.positive_row),
                                                network_.row_elements(), output.guidance);
      output.factors[image.first_image] = op.phi * ratio + (1.0 - op.phi);
    }
  }

  void operator()(const LangevinStep& op) {
    draw();
    const size_t images = static_cast<size_t>(request_.shape[0]), size = network_.row_elements();
    const float* score = latents_[op.score].data();
    double batch_noise_norm = 0.0, batch_score_norm = 0.0;
    if (op.is_batch_norm) {
      for (size_t i = 0; i < images; ++i) {
        batch_noise_norm += norm(noise_.data() + i * size, size) / static_cast<double>(images);
        batch_score_norm += norm(score + i * size, size) / static_cast<double>(images);
      }
    }
    for (size_t i = 0; i < images; ++i) {
      const size_t offset = i * size;
      const double noise_norm = op.is_batch_norm ? batch_noise_norm : norm(noise_.data() + offset, size);
      const double score_norm = op.is_batch_norm ? batch_score_norm : norm(score + offset, size);
      const double step = op.factor * (noise_norm / score_norm) * (noise_norm / score_norm);
      cpu::CombineArgs args;
      add_source(args, latents_[op.src].data() + offset, 1.0);
      add_source(args, score + offset, step);
      add_source(args, noise_.data() + offset, std::sqrt(2.0 * step));
      add_output(args, latents_[op.dst].data() + offset, 1.0);
      run_combine(args, size);
    }
  }

  void operator()(const Blend& op) {
    const auto [known, mask, noise] = inpainting_;
    const float known_weight = static_cast<float>(op.known), noise_weight = static_cast<float>(op.noise);
    const float* source = latents_[op.src].data();
    float* target = latents_[op.dst].data();
    for (size_t i = 0; i < count_; ++i)
      target[i] =
          mask[i] * source[i] + (1.0f - mask[i]) * (known_weight * known[i] + noise_weight * noise[i]);
  }

  void operator()(const Step& op) {
    if (request_.on_step) {
      float* denoised = nullptr;
      if (request_.wants_denoised && !op.denoised.empty()) {
        denoised = denoised_.data();
        combine(op.denoised, 0.0, denoised, nullptr);
      }
      request_.on_step(op.index, latents_[op.x].data(), denoised);
    }
    ++steps_done_;
    if (request_.progress) request_.progress->steps_done.store(steps_done_, std::memory_order_relaxed);
    check_limits(request_.limits, steps_done_);
  }

 private:
  // The end of an evaluation, for whoever looks.
  void show(float* latents) {
    if (!request_.on_evaluation) return;
    request_.on_evaluation(static_cast<int>(denoise_index_) - 1, latents, *this);
    check_limits(request_.limits, steps_done_);
  }

  void set_guidance(double guidance) override {
    check(std::isfinite(guidance), code::kInvalidRequest, "guidance: got ", guidance, "; it must be finite");
    check(!is_guided(guidance) || network_.has_negative(), code::kInvalidRequest, "guidance: got ", guidance,
          " in mid-run, but the run began without a negative half");
    changed_guidance_ = guidance;
  }

  void set_conditioning(const Conditioning& item) override { network_.replace(item); }

  void set_mask(const float* mask) override {
    changed_mask_ = Buffer<float>(count_);
    std::memcpy(changed_mask_.data(), mask, count_ * sizeof(float));
    inpainting_.mask = changed_mask_.data();
  }

  // How an output register was written, and how it is read.
  struct Output {
    double guidance = 1.0;
    bool is_rescaled = false;
    std::vector<double> factors;  // per image
  };

  static double norm(const float* values, size_t count) {
    double sum = 0.0;
    for (size_t i = 0; i < count; ++i) sum += static_cast<double>(values[i]) * values[i];
    return std::sqrt(sum);
  }

  static void add_source(cpu::CombineArgs& args, const float* source, double weight) {
    args.sources[args.source_count] = source;
    args.weights[args.source_count++] = static_cast<float>(weight);
  }

  static void add_output(cpu::CombineArgs& args, float* output, double scale) {
    args.outputs[args.output_count] = output;
    args.scales[args.output_count++] = static_cast<float>(scale);
  }

  double guidance_at(size_t index) const {
    if (changed_guidance_) return *changed_guidance_;
    return request_.guidance.size() == 1 ? request_.guidance[0] : request_.guidance[index];
  }

  // Whether the negative half runs, too, for guidance or because the program reads it.
  bool runs_both(size_t index) const { return reads_uncond_[index] || is_guided(guidance_at(index)); }

  // The runs that bindings are made for: a callback may turn guidance off at any of them.
  std::vector<bool> planned_runs() const {
    std::vector<bool> runs(reads_uncond_.size());
    for (size_t i = 0; i < runs.size(); ++i) runs[i] = runs_both(i);
    if (request_.on_evaluation) runs.push_back(false);
    return runs;
  }

  // Groups of one image each, for sums whose weights differ from image to image.
  void find_images() {
    for (const Group& group : network_.groups())
      for (size_t i = 0; i < group.image_count; ++i)
        images_.push_back({group.first_image + i, 1, group.negative_row + i, group.positive_row + i});
    for (Output& output : outputs_) output.factors.resize(images_.size());
  }

  bool is_rescaled(const std::vector<Term>& terms) const {
    return std::any_of(terms.begin(), terms.end(), [&](const Term& term) {
      return term.bank == Bank::kOutput && outputs_[term.index].is_rescaled;
    });
  }

  void write_input(const Denoise& op, bool is_both) {
    for (const Group& group : network_.groups()) {
      cpu::CombineArgs args;
      add_source(args, latents_[op.src].data() + group.first_image * network_.row_elements(), op.scale_in);
      add_output(args, network_.input(group.positive_row), 1.0);
      if (is_both && !network_.shares_input()) add_output(args, network_.input(group.negative_row), 1.0);
      run_combine(args, group.image_count * network_.row_elements());
    }
  }

  // The halves of an output as sources of a sum over the rows of `group`.
  void add_halves(cpu::CombineArgs& args, const Term& term, const Group& group) {
    const Output& output = outputs_[term.index];
    const double weight = output.is_rescaled ? term.weight * output.factors[group.first_image] : term.weight;
    const double g = output.guidance;
    if (g != 0.0) add_source(args, network_.output(term.index, group.positive_row), weight * g);
    if (g != 1.0) add_source(args, network_.output(term.index, group.negative_row), weight * (1.0 - g));
  }

  // target = sum of terms + noise * (the draw), group by group; with `fusion`, also the input of that
  // DENOISE.
  void combine(const std::vector<Term>& terms, double noise, float* target, const Denoise* fusion) {
    for (const Group& group : is_rescaled(terms) ? std::span<const Group>(images_) : network_.groups()) {
      const size_t offset = group.first_image * network_.row_elements();
      const size_t count = group.image_count * network_.row_elements();
      cpu::CombineArgs args;
      for (const Term& term : terms) {
        switch (term.bank) {
          case Bank::kLatent: add_source(args, latents_[term.index].data() + offset, term.weight); break;
          case Bank::kOutput: add_halves(args, term, group); break;
          case Bank::kUncond:
            add_source(args, network_.output(term.index, group.negative_row), term.weight);
            break;
        }
      }
      if (noise != 0.0) add_source(args, noise_.data() + offset, noise);
      add_output(args, target + offset, 1.0);
      if (fusion) {
        add_output(args, network_.input(group.positive_row), fusion->scale_in);
        if (runs_both(denoise_index_) && !network_.shares_input())
          add_output(args, network_.input(group.negative_row), fusion->scale_in);
      }
      run_combine(args, count);
    }
  }

  void run_combine(cpu::CombineArgs& args, size_t count) {
    args.count = count;
    if (!request_.combine(args)) [[unlikely]]
      fail_not_finite(steps_done_);
  }

  void draw() {
    const auto images = static_cast<size_t>(request_.shape[0]);
    request_.noise->draw(noise_.data(), images, network_.row_elements());
  }

  const SampleRequest& request_;
  const Program& program_;
  ort::RunControl control_;
  std::vector<bool> reads_uncond_;  // per DENOISE
  std::optional<double> changed_guidance_;
  Network network_;
  Inpainting inpainting_;
  Buffer<float> changed_mask_;
  size_t count_;
  std::vector<Buffer<float>> latents_;
  std::vector<Output> outputs_;            // per output register
  std::vector<Group> images_;              // one image each; only for programs that rescale
  std::vector<const Denoise*> fusion_of_;  // per instruction: the DENOISE whose input this COMBINE writes
  Buffer<float> noise_, denoised_;
  Buffer<uint32_t> magnitudes_;  // of one image; only for programs that threshold
  size_t position_ = 0;
  size_t denoise_index_ = 0;
  int steps_done_ = 0;
  bool is_input_ready_ = false;
};

}  // namespace

void sample(const Denoiser& denoiser, const SampleRequest& request) {
  const int evaluations = request.program->count_denoise();
  check(request.guidance.size() == 1 || request.guidance.size() == static_cast<size_t>(evaluations),
        code::kInvalidRequest, "guidance: got ", request.guidance.size(),
        " values; one value or one per network evaluation (", evaluations, ") is allowed");
  for (double value : request.guidance)
    check(std::isfinite(value), code::kInvalidRequest, "guidance: got ", value, "; it must be finite");
  check(request.noise || !request.program->draws_noise(), code::kInvalidRequest,
        "noise: this program draws noise, and no noise stream was given");
  const Inpainting& given = request.inpainting;
  check(!request.program->blends() || (given.known && given.mask && given.noise), code::kInvalidRequest,
        "known: this program blends known latents in; known, mask and known_noise are needed");
  if (request.progress) {
    request.progress->steps_done.store(0);  // it may have counted an earlier call
    request.progress->steps_total.store(request.program->count_steps());
  }
  if (denoiser.gpu()) return sample_on_gpu(denoiser, request);
  Loop(denoiser, request).run();
}

}  // namespace textopia::engine
