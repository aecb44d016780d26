#include "engine/network_cuda.h"

#include <algorithm>

namespace textopia::engine {
namespace {

void* address(cuda::api::Pointer pointer) { return reinterpret_cast<void*>(pointer); }

bool is_alike(const Rows* a, const Rows* b) {
  return a->name == b->name && a->row_shape == b->row_shape && a->is_scalar == b->is_scalar;
}

}  // namespace

NetworkCuda::NetworkCuda(const Denoiser& denoiser, const Gpu& gpu, Batch batch, int output_count)
    : stream_(gpu.stream()),
      batch_(std::move(batch)),
      dtype_(denoiser.sample().dtype),
      has_time_features_(denoiser.time_graph() != nullptr),
      thread_(std::this_thread::get_id()) {
  for (const ort::TensorInfo& info : denoiser.session()->inputs()) input_names_.push_back(info.name);
  const auto buffer = [&](size_t bytes) { return cuda::DeviceBuffer(gpu.device(), bytes); };
  const size_t bytes = batch_.row_count() * batch_.row_elements() * size_of(dtype_);
  // A time graph makes many numbers of a noise level.
  const size_t numbers = has_time_features_ ? static_cast<size_t>(denoiser.noise_level().shape[1]) : 1;
  const size_t level_bytes = batch_.row_count() * numbers * size_of(denoiser.noise_level().dtype);
  level_words_ = static_cast<int>((level_bytes + 3) / 4);
  input_ = buffer(bytes);
  level_ = buffer(static_cast<size_t>(level_words_) * 4);
  for (int i = 0; i < output_count; ++i) outputs_.push_back(buffer(bytes));
  for (const Rows* rows : inputs()) {
    conditioning_.push_back(buffer(rows->data.size()));
    upload(conditioning_.size() - 1);
  }
  for (const Run& run : batch_.runs()) bindings_.push_back(bind(denoiser, run));
}

std::vector<const Rows*> NetworkCuda::inputs() const {
  std::vector<const Rows*> found;
  for (const Rows& rows : batch_.conditioning())  // the others are the prompt graph's alone
    if (std::find(input_names_.begin(), input_names_.end(), rows.name) != input_names_.end())
      found.push_back(&rows);
  for (const Rows& rows : batch_.hoisted()) found.push_back(&rows);
  return found;
}

bool NetworkCuda::fits(const Batch& batch, int output_count) const {
  if (static_cast<size_t>(output_count) > outputs_.size() || batch.runs() != batch_.runs() ||
      batch.run_shape(batch.row_count()) != batch_.run_shape(batch_.row_count()))
    return false;
  const auto are_alike = [](const std::vector<Rows>& a, const std::vector<Rows>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](const Rows& x, const Rows& y) { return is_alike(&x, &y); });
  };
  return are_alike(batch.conditioning(), batch_.conditioning()) &&
         are_alike(batch.hoisted(), batch_.hoisted());
}

void NetworkCuda::load(Batch batch) {
  batch_ = std::move(batch);
  for (size_t i = 0; i < conditioning_.size(); ++i) upload(i);
}

void NetworkCuda::upload(size_t index) {
  const Rows& rows = *inputs()[index];
  const cuda::api::Pointer target = conditioning_[index].get();
  if (rows.on_device.size() < batch_.row_count())
    cuda::upload(stream_, target, rows.data.data(), rows.data.size());
  for (const auto& [row, source] : rows.on_device)
    cuda::copy(stream_, target + row * rows.row_bytes, reinterpret_cast<cuda::api::Pointer>(source),
               rows.row_bytes);
}

void NetworkCuda::replace(const Conditioning& item) {
  batch_.replace(item);
  const std::vector<const Rows*> rows = inputs();
  const auto& hoisted = batch_.hoisted();
  for (size_t i = 0; i < rows.size(); ++i) {
    const bool is_hoisted =
        std::any_of(hoisted.begin(), hoisted.end(), [&](const Rows& made) { return &made == rows[i]; });
    if (rows[i]->name == item.name || is_hoisted) upload(i);
  }
}

std::vector<ort::Binding> NetworkCuda::bind(const Denoiser& denoiser, const Run& run) {
  constexpr auto kDevice = ort::Memory::kDevice;
  const Shape shape = batch_.run_shape(run.row_count);
  const size_t offset = run.row * batch_.row_elements() * size_of(dtype_);
  const std::vector<const Rows*> rows = inputs();
  std::vector<ort::Binding> bindings;
  for (const cuda::DeviceBuffer& output : outputs_) {
    ort::Binding binding(denoiser.session());
    binding.input(denoiser.sample().name, {address(input_.get() + offset), dtype_, shape}, kDevice);
    binding.input(denoiser.noise_level().name,
                  {address(level_.get()), denoiser.noise_level().dtype,
                   denoiser.noise_level_shape(static_cast<int64_t>(run.row_count))},
                  kDevice);
    for (size_t i = 0; i < conditioning_.size(); ++i)
      binding.input(rows[i]->name, Batch::view(*rows[i], address(conditioning_[i].get()), run), kDevice);
    binding.output(denoiser.output().name, {address(output.get() + offset), dtype_, shape}, kDevice);
    bindings.push_back(std::move(binding));
  }
  return bindings;
}

const char* NetworkCuda::dtype() const {
  return dtype_ == DType::kFloat16 ? "fp16" : dtype_ == DType::kBFloat16 ? "bf16" : "fp32";
}

void NetworkCuda::run(int index, bool runs_both, ort::RunControl* control) {
  const bool replays = std::this_thread::get_id() == thread_;
  for (size_t i = 0; i < bindings_.size(); ++i) {
    if (batch_.runs()[i].runs_both != runs_both) continue;
    ort::Binding& binding = bindings_[i][static_cast<size_t>(index)];
    replays ? binding.replay(control) : binding.run(control);
  }
}

}  // namespace textopia::engine
