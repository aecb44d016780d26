#include "engine/network.h"

#include <algorithm>

#include "cpu/convert.h"

namespace textopia::engine {

Network::Network(const Denoiser& denoiser, const Shape& shape, const std::vector<Conditioning>& conditioning,
                 int output_count, const std::vector<double>& noise_levels,
                 const std::vector<bool>& runs_both)
    : batch_(denoiser, shape, conditioning, runs_both),
      is_half_(denoiser.sample().dtype == DType::kFloat16),
      noise_levels_(denoiser, noise_levels),
      noise_level_(batch_.row_count() * noise_levels_.row_bytes()) {
  const size_t elements = batch_.row_count() * row_elements();
  input_ = Buffer<float>(elements);
  for (int i = 0; i < output_count; ++i) outputs_.emplace_back(elements);
  if (is_half_) {
    half_input_ = Buffer<uint16_t>(elements);
    half_output_ = Buffer<uint16_t>(elements);
  }
  for (const Run& run : batch_.runs()) bindings_.push_back(bind(denoiser, denoiser.session(), run));
  if (!denoiser.ends()) return;
  for (const Run& run : batch_.runs()) end_bindings_.push_back(bind(denoiser, denoiser.ends(), run));
  for (size_t i = 0; i < noise_levels.size(); ++i) is_end_.push_back(denoiser.is_end(i, noise_levels.size()));
}

std::vector<ort::Binding> Network::bind(const Denoiser& denoiser,
                                        const std::shared_ptr<ort::Session>& session, const Run& run) {
  std::vector<ort::Binding> bindings;
  const auto& inputs = denoiser.session()->inputs();
  const DType dtype = is_half_ ? DType::kFloat16 : DType::kFloat32;
  for (auto& output : outputs_) {
    ort::Binding binding(session);
    const size_t from = run.input_row * row_elements(), to = run.row * row_elements();
    void* source = is_half_ ? static_cast<void*>(half_input_.data() + from) : input_.data() + from;
    void* target = is_half_ ? static_cast<void*>(half_output_.data() + to) : output.data() + to;
    binding.input(denoiser.sample().name, {source, dtype, batch_.run_shape(run.input_count)});
    binding.input(denoiser.noise_level().name,
                  {noise_level_.data(), denoiser.noise_level().dtype,
                   denoiser.noise_level_shape(static_cast<int64_t>(run.input_count))});
    for (Rows& rows : batch_.conditioning())
      if (std::any_of(inputs.begin(), inputs.end(), [&](const auto& info) { return info.name == rows.name; }))
        binding.input(rows.name, view(denoiser, rows, run));
    for (Rows& rows : batch_.hoisted()) binding.input(rows.name, rows.view(run.row, run.row_count));
    binding.output(denoiser.output().name, {target, dtype, batch_.run_shape(run.row_count)});
    bindings.push_back(std::move(binding));
  }
  return bindings;
}

// Rows of this input that a run takes: those of the sample for what the shared prefix reads.
TensorView Network::view(const Denoiser& denoiser, Rows& rows, const Run& run) const {
  if (batch_.shares_input() && !rows.is_scalar)
    for (const ort::TensorInfo& info : denoiser.session()->inputs())
      if (info.name == rows.name && info.symbols[0] == denoiser.sample().symbols[0])
        return rows.view(run.input_row, run.input_count);
  return rows.view(run.row, run.row_count);
}

void Network::run(int index, bool runs_both, size_t evaluation, ort::RunControl* control) {
  batch_.fill_noise_level(noise_levels_, evaluation, noise_level_.data());
  auto& bindings = !is_end_.empty() && is_end_[evaluation] ? end_bindings_ : bindings_;
  for (size_t i = 0; i < bindings_.size(); ++i) {
    const Run& run = batch_.runs()[i];
    if (run.runs_both != runs_both) continue;
    const size_t from = run.input_row * row_elements(), to = run.row * row_elements();
    if (is_half_)
      cpu::float_to_half(input_.data() + from, half_input_.data() + from, run.input_count * row_elements());
    bindings[i][static_cast<size_t>(index)].run(control);
    if (is_half_)
      cpu::half_to_float(half_output_.data() + to, outputs_[index].data() + to,
                         run.row_count * row_elements());
  }
}

}  // namespace textopia::engine
