#include "engine/network_cuda.h"

#include <algorithm>

namespace textopia::engine {
namespace {

void* address(cuda::api::Pointer pointer) { return reinterpret_cast<void*>(pointer); }

bool reads(const ort::Session& session, const std::string& name) {
  return std::any_of(session.inputs().begin(), session.inputs().end(),
                     [&](const auto& info) { return info.name == name; });
}

// Bytes that one row of the graph is told about the noise.
size_t level_row_bytes(const Denoiser& denoiser) {
  const ort::TensorInfo& info = denoiser.noise_level();
  return size_of(info.dtype) * (denoiser.time_graph() ? static_cast<size_t>(info.shape[1]) : 1);
}

}  // namespace

NetworkCuda::NetworkCuda(const Denoiser& denoiser, const Gpu& gpu, const Shape& shape,
                         const std::vector<Conditioning>& conditioning, int output_count,
                         const std::vector<bool>& runs_both)
    : stream_(gpu.stream()),
      batch_(denoiser, shape, conditioning, runs_both),
      dtype_(denoiser.sample().dtype),
      has_time_features_(denoiser.time_graph() != nullptr) {
  const auto buffer = [&](size_t bytes) { return cuda::DeviceBuffer(gpu.device(), bytes); };
  const size_t bytes = batch_.row_count() * batch_.row_elements() * size_of(dtype_);
  const size_t level_bytes = batch_.row_count() * level_row_bytes(denoiser);
  level_words_ = static_cast<int>((level_bytes + 3) / 4);
  input_ = buffer(bytes);
  level_ = buffer(static_cast<size_t>(level_words_) * 4);
  for (int i = 0; i < output_count; ++i) outputs_.push_back(buffer(bytes));
  const auto add = [&](const Rows& rows, bool is_hoisted) {
    inputs_.push_back({&rows, is_hoisted, buffer(rows.data.size())});
    upload(inputs_.back());
  };
  for (const Rows& rows : batch_.conditioning())
    if (reads(*denoiser.session(), rows.name)) add(rows, false);
  for (const Rows& rows : batch_.hoisted()) add(rows, true);
  for (const Run& run : batch_.runs()) bindings_.push_back(bind(denoiser, run));
}

void NetworkCuda::upload(const Input& input) const {
  const Rows& rows = *input.rows;
  const cuda::api::Pointer target = input.buffer.get();
  if (rows.on_device.size() < batch_.row_count())
    cuda::upload(stream_, target, rows.data.data(), rows.data.size());
  for (const auto& [row, source] : rows.on_device)
    cuda::copy(stream_, target + row * rows.row_bytes, reinterpret_cast<cuda::api::Pointer>(source),
               rows.row_bytes);
}

void NetworkCuda::replace(const Conditioning& item) {
  batch_.replace(item);
  for (const Input& input : inputs_)
    if (input.is_hoisted || input.rows->name == item.name) upload(input);
}

std::vector<ort::Binding> NetworkCuda::bind(const Denoiser& denoiser, const Run& run) {
  constexpr auto kDevice = ort::Memory::kDevice;
  const Shape shape = batch_.run_shape(run.row_count);
  const size_t offset = run.row * batch_.row_elements() * size_of(dtype_);
  std::vector<ort::Binding> bindings;
  for (const cuda::DeviceBuffer& output : outputs_) {
    ort::Binding binding(denoiser.session());
    binding.input(denoiser.sample().name, {address(input_.get() + offset), dtype_, shape}, kDevice);
    binding.input(denoiser.noise_level().name,
                  {address(level_.get()), denoiser.noise_level().dtype,
                   denoiser.noise_level_shape(static_cast<int64_t>(run.row_count))},
                  kDevice);
    for (const Input& input : inputs_)
      binding.input(input.rows->name, Batch::view(*input.rows, address(input.buffer.get()), run), kDevice);
    binding.output(denoiser.output().name, {address(output.get() + offset), dtype_, shape}, kDevice);
    bindings.push_back(std::move(binding));
  }
  return bindings;
}

const char* NetworkCuda::dtype() const { return dtype_ == DType::kFloat16 ? "fp16" : "fp32"; }

void NetworkCuda::run(int index, bool runs_both, ort::RunControl* control) {
  for (size_t i = 0; i < bindings_.size(); ++i)
    if (batch_.runs()[i].runs_both == runs_both) bindings_[i][static_cast<size_t>(index)].run(control);
}

}  // namespace textopia::engine
