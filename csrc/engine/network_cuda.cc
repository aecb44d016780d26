#include "engine/network_cuda.h"

namespace textopia::engine {
namespace {

void* address(cuda::api::Pointer pointer) { return reinterpret_cast<void*>(pointer); }

}  // namespace

NetworkCuda::NetworkCuda(const Denoiser& denoiser, const Gpu& gpu, const Shape& shape,
                         const std::vector<Conditioning>& conditioning, int output_count,
                         const std::vector<bool>& runs_both)
    : stream_(gpu.stream()),
      batch_(denoiser, shape, conditioning, runs_both),
      dtype_(denoiser.sample().dtype) {
  const auto buffer = [&](size_t bytes) { return cuda::DeviceBuffer(gpu.device(), bytes); };
  const size_t bytes = batch_.row_count() * batch_.row_elements() * size_of(dtype_);
  const size_t level_bytes = batch_.row_count() * size_of(denoiser.noise_level().dtype);
  level_words_ = static_cast<int>((level_bytes + 3) / 4);
  input_ = buffer(bytes);
  level_ = buffer(static_cast<size_t>(level_words_) * 4);
  for (int i = 0; i < output_count; ++i) outputs_.push_back(buffer(bytes));
  for (const Rows& rows : batch_.conditioning()) {
    conditioning_.push_back(buffer(rows.data.size()));
    upload_conditioning(conditioning_.size() - 1);
  }
  for (const Run& run : batch_.runs()) bindings_.push_back(bind(denoiser, run));
}

void NetworkCuda::upload_conditioning(size_t index) {
  const Rows& rows = batch_.conditioning()[index];
  const cuda::api::Pointer target = conditioning_[index].get();
  if (rows.on_device.size() < batch_.row_count())
    cuda::upload(stream_, target, rows.data.data(), rows.data.size());
  for (const auto& [row, source] : rows.on_device)
    cuda::copy(stream_, target + row * rows.row_bytes, reinterpret_cast<cuda::api::Pointer>(source),
               rows.row_bytes);
}

void NetworkCuda::replace(const Conditioning& item) {
  batch_.replace(item);
  for (size_t i = 0; i < conditioning_.size(); ++i)
    if (batch_.conditioning()[i].name == item.name) upload_conditioning(i);
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
    for (size_t i = 0; i < conditioning_.size(); ++i) {
      const Rows& rows = batch_.conditioning()[i];
      binding.input(rows.name, Batch::view(rows, address(conditioning_[i].get()), run), kDevice);
    }
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
