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

bool is_one_of(DType type, std::initializer_list<DType> allowed) {
  return std::find(allowed.begin(), allowed.end(), type) != allowed.end();
}

}  // namespace

Denoiser::Denoiser(std::shared_ptr<ort::Session> session, DenoiserOptions options,
                   std::shared_ptr<const Gpu> gpu)
    : session_(std::move(session)), options_(std::move(options)), gpu_(std::move(gpu)) {
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
    if (info.name != options_.sample && info.name != options_.noise_level) conditioning_.push_back(info);

  check(is_one_of(sample_.dtype, {DType::kFloat32, DType::kFloat16}), code::kModelUnsupported, label,
        ": input \"", sample_.name, "\" is ", name_of(sample_.dtype), "; float32 and float16 are supported");
  check(output_.dtype == sample_.dtype, code::kModelUnsupported, label, ": output \"", output_.name, "\" is ",
        name_of(output_.dtype), ", but input \"", sample_.name, "\" is ", name_of(sample_.dtype));
  check(is_one_of(noise_level_.dtype,
                  {DType::kFloat32, DType::kFloat16, DType::kFloat64, DType::kInt32, DType::kInt64}),
        code::kModelUnsupported, label, ": input \"", noise_level_.name, "\" is ",
        name_of(noise_level_.dtype), "; float16, float32, float64, int32 and int64 are supported");
  check(!sample_.shape.empty(), code::kModelUnsupported, label, ": input \"", sample_.name,
        "\" is a scalar; a batch of latents is needed");
  check(noise_level_.shape.size() <= 1, code::kModelUnsupported, label, ": input \"", noise_level_.name,
        "\" has shape ", to_string(noise_level_.shape), "; a scalar, [1] or [batch] is needed");
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

Shape Denoiser::noise_level_shape(int64_t rows) const {
  if (noise_level_.shape.empty()) return {};
  return {is_noise_level_per_row_ ? rows : 1};
}

}  // namespace textopia::engine
