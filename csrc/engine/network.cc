#include "engine/network.h"

#include "cpu/convert.h"

namespace textopia::engine {

Network::Network(const Denoiser& denoiser, const Shape& shape, const std::vector<Conditioning>& conditioning,
                 int output_count, const std::vector<bool>& runs_both)
    : batch_(denoiser, shape, conditioning, runs_both),
      is_half_(denoiser.sample().dtype == DType::kFloat16),
      noise_level_(batch_.row_count()) {
  const size_t elements = batch_.row_count() * row_elements();
  input_ = Buffer<float>(elements);
  for (int i = 0; i < output_count; ++i) outputs_.emplace_back(elements);
  if (is_half_) {
    half_input_ = Buffer<uint16_t>(elements);
    half_output_ = Buffer<uint16_t>(elements);
  }
  for (const Run& run : batch_.runs()) bindings_.push_back(bind(denoiser, run));
}

std::vector<ort::Binding> Network::bind(const Denoiser& denoiser, const Run& run) {
  std::vector<ort::Binding> bindings;
  const Shape shape = batch_.run_shape(run.row_count);
  const DType dtype = is_half_ ? DType::kFloat16 : DType::kFloat32;
  for (auto& output : outputs_) {
    ort::Binding binding(denoiser.session());
    const size_t offset = run.row * row_elements();
    void* source = is_half_ ? static_cast<void*>(half_input_.data() + offset) : input_.data() + offset;
    void* target = is_half_ ? static_cast<void*>(half_output_.data() + offset) : output.data() + offset;
    binding.input(denoiser.sample().name, {source, dtype, shape});
    binding.input(denoiser.noise_level().name,
                  {noise_level_.data(), batch_.noise_level_dtype(),
                   denoiser.noise_level_shape(static_cast<int64_t>(run.row_count))});
    for (Rows& rows : batch_.conditioning())
      binding.input(rows.name, Batch::view(rows, rows.data.data(), run));
    binding.output(denoiser.output().name, {target, dtype, shape});
    bindings.push_back(std::move(binding));
  }
  return bindings;
}

void Network::run(int index, bool runs_both, double noise_level, ort::RunControl* control) {
  batch_.fill_noise_level(noise_level, noise_level_.data());
  for (size_t i = 0; i < bindings_.size(); ++i) {
    const Run& run = batch_.runs()[i];
    if (run.runs_both != runs_both) continue;
    const size_t offset = run.row * row_elements(), count = run.row_count * row_elements();
    if (is_half_) cpu::float_to_half(input_.data() + offset, half_input_.data() + offset, count);
    bindings_[i][static_cast<size_t>(index)].run(control);
    if (is_half_) cpu::half_to_float(half_output_.data() + offset, outputs_[index].data() + offset, count);
  }
}

}  // namespace textopia::engine
