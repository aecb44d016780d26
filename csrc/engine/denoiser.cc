#include "engine/denoiser.h"

#include <algorithm>

#include "base/error.h"

namespace textopia::engine {
namespace {

std::string list_names(const std::vector<ort::TensorInfo>& infos) {
  std::string names;
  for (const auto& info : infos) names += (names.empty() ? "" : ", ") + info.name;
  return names;
}

const ort::TensorInfo& find(const std::vector<ort::TensorInfo>& infos, const std::string& name,
                            const std::string& label, const char* kind) {
  const auto found =
      std::find_if(infos.begin(), infos.end(), [&](const auto& info) { return info.name == name; });
  check(found != infos.end(), code::kModelUnsupported, label, ": no ", kind, " named \"", name,
        "\"; the graph has ", list_names(infos));
  return *found;
}

bool has(const std::vector<ort::TensorInfo>& infos, const std::string& name) {
  return std::any_of(infos.begin(), infos.end(), [&](const auto& info) { return info.name == name; });
}

bool is_made_by(const std::shared_ptr<ort::Session>& graph, const ort::TensorInfo& info) {
  return graph && has(graph->outputs(), info.name);
}

bool is_one_of(DType type, std::initializer_list<DType> allowed) {
  return std::find(allowed.begin(), allowed.end(), type) != allowed.end();
}

}  // namespace

Denoiser::Denoiser(std::shared_ptr<ort::Session> session, DenoiserOptions options,
                   std::shared_ptr<const Gpu> gpu, HoistedGraphs hoisted)
    : session_(std::move(session)),
      options_(std::move(options)),
      gpu_(std::move(gpu)),
      hoisted_(std::move(hoisted)) {
  const std::string& label = session_->label();
  if (gpu_ && !gpu_->is_emulated()) {
    const ort::CudaOptions* cuda = session_->cuda();
    check(
        cuda != nullptr && cuda->device == gpu_->device()->ordinal() && cuda->stream == gpu_->stream().get(),
        code::kConfiguration, label, ": the loop runs on ", gpu_->device()->label(),
        ", so the session has to be made for that device and the loop's stream");
  }
  sample_ = find(session_->inputs(), options_.sample, label, "input");
  noise_level_ = find(session_->inputs(), options_.noise_level, label, "input");
  output_ = find(session_->outputs(), options_.output, label, "output");
  for (const auto& info : session_->inputs())
    if (info.name != options_.sample && info.name != options_.noise_level &&
        !is_made_by(hoisted_.prompt, info))
      conditioning_.push_back(info);
  if (hoisted_.prompt)
    for (const auto& info : hoisted_.prompt->inputs())
      if (!has(conditioning_, info.name)) conditioning_.push_back(info);

  check(is_one_of(sample_.dtype, {DType::kFloat32, DType::kFloat16}) ||
            (gpu_ && sample_.dtype == DType::kBFloat16),
        code::kModelUnsupported, label, ": input \"", sample_.name, "\" is ", name_of(sample_.dtype),
        "; float32, float16 and, on a GPU, bfloat16 are supported");
  check(output_.dtype == sample_.dtype, code::kModelUnsupported, label, ": output \"", output_.name, "\" is ",
        name_of(output_.dtype), ", but input \"", sample_.name, "\" is ", name_of(sample_.dtype));
  const ort::TensorInfo& told =
      hoisted_.time && !hoisted_.time->inputs().empty() ? hoisted_.time->inputs()[0] : noise_level_;
  check(is_one_of(told.dtype,
                  {DType::kFloat32, DType::kFloat16, DType::kFloat64, DType::kInt32, DType::kInt64}),
        code::kModelUnsupported, label, ": input \"", told.name, "\" is ", name_of(told.dtype),
        "; float16, float32, float64, int32 and int64 are supported");
  check_hoisted();
  check(!sample_.shape.empty(), code::kModelUnsupported, label, ": input \"", sample_.name,
        "\" is a scalar; a batch of latents is needed");
  check(hoisted_.time || noise_level_.shape.size() <= 1, code::kModelUnsupported, label, ": input \"",
        noise_level_.name, "\" has shape ", to_string(noise_level_.shape),
        "; a scalar, [1] or [batch] is needed");
  check(options_.images_per_run >= 0, code::kInvalidRequest, "images_per_run: got ", options_.images_per_run,
        ", allowed are 0 (the whole batch) and above");

  if (sample_.shape[0] > 0) fixed_rows_ = sample_.shape[0];
  if (noise_level_.shape.size() == 1) {
    // A free size named like the sample's batch means one value per row; any other name ("steps") takes one
    // value.
    const int64_t size = noise_level_.shape[0];
    const std::string& symbol = noise_level_.symbols[0];
    const bool is_named_like_rows =
        !symbol.empty() && (symbol == sample_.symbols[0] || symbol.starts_with("batch"));
    is_noise_level_per_row_ = size > 1 || (size < 0 && is_named_like_rows);
  }
}

void Denoiser::check_hoisted() const {
  const std::string& label = session_->label();
  check(!gpu_ || !options_.shares_prefix, code::kModelUnsupported, label,
        ": a graph whose halves of guidance share their prefix runs on the CPU only");
  check(!gpu_ || !hoisted_.ends, code::kModelUnsupported, label,
        ": another network for the first and last evaluations runs on the CPU only");
  if (hoisted_.ends) {
    const auto are_equal = [](const auto& own, const auto& others) {
      return std::equal(own.begin(), own.end(), others.begin(), others.end(),
                        [](const ort::TensorInfo& a, const ort::TensorInfo& b) {
                          return a.name == b.name && a.dtype == b.dtype && a.shape == b.shape;
                        });
    };
    check(are_equal(session_->inputs(), hoisted_.ends->inputs()) &&
              are_equal(session_->outputs(), hoisted_.ends->outputs()),
          code::kModelUnsupported, hoisted_.ends->label(), ": takes or gives something else than ", label);
  }
  if (hoisted_.time) {
    const auto &inputs = hoisted_.time->inputs(), &outputs = hoisted_.time->outputs();
    check(inputs.size() == 1 && inputs[0].shape.size() <= 1 && outputs.size() == 1, code::kModelUnsupported,
          hoisted_.time->label(),
          ": a time graph has one input of noise levels and one output; this one has ", list_names(inputs),
          " and ", list_names(outputs));
    check(
        noise_level_.shape.size() == 2 && noise_level_.shape[1] > 0 && outputs[0].dtype == noise_level_.dtype,
        code::kModelUnsupported, label, ": input \"", noise_level_.name, "\" does not take what ",
        hoisted_.time->label(), " makes");
  }
  if (hoisted_.prompt) {
    for (const auto& info : hoisted_.prompt->outputs())
      check(find(session_->inputs(), info.name, label, "input").dtype == info.dtype, code::kModelUnsupported,
            label, ": input \"", info.name, "\" does not take what ", hoisted_.prompt->label(), " makes");
  }
  check(!options_.shares_prefix || sample_.shape.empty() || sample_.shape[0] < 0, code::kModelUnsupported,
        label, ": a graph that shares its prefix has a free number of images");
}

bool Denoiser::is_end(size_t index, size_t count) const {
  const size_t ends = std::max<size_t>(1, count / 10);
  return hoisted_.ends && (index < ends || index + ends >= count);
}

Shape Denoiser::noise_level_shape(int64_t rows) const {
  if (hoisted_.time) return {rows, noise_level_.shape[1]};
  if (noise_level_.shape.empty()) return {};
  return {is_noise_level_per_row_ ? rows : 1};
}

}  // namespace textopia::engine
