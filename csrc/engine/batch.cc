#include "engine/batch.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace textopia::engine {
namespace {

// The shape of a tensor without its first axis.
Shape tail(const Shape& shape) { return Shape(shape.begin() + 1, shape.end()); }

Shape with_rows(size_t rows, const Shape& row_shape) {
  Shape shape{static_cast<int64_t>(rows)};
  shape.insert(shape.end(), row_shape.begin(), row_shape.end());
  return shape;
}

void check_fits(const std::string& label, const ort::TensorInfo& info, const Shape& row_shape) {
  const bool has_rank = info.shape.size() == row_shape.size() + 1;
  bool fits = has_rank;
  for (size_t i = 0; fits && i < row_shape.size(); ++i)
    fits = info.shape[i + 1] < 0 || info.shape[i + 1] == row_shape[i];
  check(fits, code::kInvalidRequest, label, ": input \"", info.name, "\" got rows of shape ",
        to_string(row_shape), ", the graph wants ", to_string(info.shape),
        " (the first axis is the batch, -1 is free)");
}

bool is_same_scalar(const TensorView& a, const TensorView& b) {
  return b.shape.empty() && a.dtype == b.dtype && std::memcmp(a.data, b.data, a.bytes()) == 0;
}

}  // namespace

Batch::Batch(const Denoiser& denoiser, const Shape& shape, const std::vector<Conditioning>& conditioning,
             const std::vector<bool>& runs_both)
    : label_(denoiser.session()->label()),
      shape_(shape),
      shares_input_(denoiser.options().shares_prefix),
      prompt_graph_(denoiser.prompt_graph()) {
  has_negative_ = std::find(runs_both.begin(), runs_both.end(), true) != runs_both.end();
  check(!shape.empty() && *std::min_element(shape.begin(), shape.end()) > 0, code::kInvalidRequest,
        "latents: shape ", to_string(shape), "; every size must be positive");
  check_fits(label_, denoiser.sample(), tail(shape));
  image_count_ = static_cast<size_t>(shape[0]);
  row_elements_ = element_count(tail(shape));
  row_count_ = image_count_ * (has_negative_ ? 2 : 1);
  element_count(run_shape(row_count_));  // refuses what no address can count
  const auto per_run = static_cast<size_t>(denoiser.options().images_per_run);
  images_per_run_ = per_run ? std::min(per_run, image_count_) : image_count_;
  // A graph that was made for one batch size decides itself how many rows a run takes, where the images of a
  // run do not fill it.
  const auto fixed = static_cast<size_t>(denoiser.fixed_rows());
  const size_t halves = row_count_ / image_count_;
  if (fixed && (images_per_run_ * halves % fixed != 0 || image_count_ % images_per_run_ != 0))
    images_per_run_ = image_count_;

  lay_out();
  arrange(denoiser, conditioning);
  if (prompt_graph_) hoist();
  plan_runs(denoiser, runs_both);
}

Shape Batch::run_shape(size_t row_count) const { return with_rows(row_count, tail(shape_)); }

void Batch::lay_out() {
  for (size_t first = 0; first < image_count_; first += images_per_run_) {
    const size_t count = std::min(images_per_run_, image_count_ - first);
    const size_t row = first * (has_negative_ ? 2 : 1);
    groups_.push_back({first, count, row, has_negative_ ? row + count : row});
  }
}

void Batch::arrange(const Denoiser& denoiser, const std::vector<Conditioning>& conditioning) {
  for (const ort::TensorInfo& info : denoiser.conditioning()) {
    const auto given = std::find_if(conditioning.begin(), conditioning.end(),
                                    [&](const Conditioning& item) { return item.name == info.name; });
    check(given != conditioning.end(), code::kInvalidRequest, label_, ": input \"", info.name,
          "\" is missing from the conditioning");
    check(given->positive.dtype == info.dtype, code::kInvalidRequest, label_, ": input \"", info.name,
          "\" got ", name_of(given->positive.dtype), ", the graph wants ", name_of(info.dtype));

    Rows rows{info.name, info.dtype, {}, given->positive.shape.empty(), size_of(info.dtype), {}};
    if (rows.is_scalar) {
      check(given->negative.data == nullptr || is_same_scalar(given->positive, given->negative),
            code::kInvalidRequest, label_, ": input \"", info.name,
            "\" is a scalar, which both halves share; the negative half gave another value");
      rows.data = Buffer<std::byte>(rows.row_bytes);
      std::memcpy(rows.data.data(), given->positive.data, rows.row_bytes);
      conditioning_.push_back(std::move(rows));
      continue;
    }
    rows.row_shape = tail(given->positive.shape);
    check_fits(label_, info, rows.row_shape);
    rows.row_bytes = byte_count(rows.row_shape, size_of(info.dtype));
    rows.data = Buffer<std::byte>(byte_count(with_rows(row_count_, rows.row_shape), size_of(info.dtype)));

    if (has_negative_)
      check(given->negative.data != nullptr, code::kInvalidRequest, label_, ": input \"", info.name,
            "\" has no negative half, which guidance other than 1 and CFG++ samplers need");
    fill(rows, *given);
    conditioning_.push_back(std::move(rows));
  }
  for (const Conditioning& item : conditioning) {
    const bool is_known = std::any_of(conditioning_.begin(), conditioning_.end(),
                                      [&](const Rows& rows) { return rows.name == item.name; });
    check(is_known, code::kInvalidRequest, label_, ": the graph has no conditioning input \"", item.name,
          "\"");
  }
}

void Batch::fill(Rows& rows, const Conditioning& item) {
  const auto check_rows = [&](const TensorView& source, const char* half) {
    check(!source.shape.empty() && tail(source.shape) == rows.row_shape && source.dtype == rows.dtype &&
              (source.shape[0] == 1 || source.shape[0] == static_cast<int64_t>(image_count_)),
          code::kInvalidRequest, label_, ": input \"", rows.name, "\", ", half, " half: shape ",
          to_string(source.shape), " for ", image_count_, " images with rows of shape ",
          to_string(rows.row_shape));
  };
  const auto place = [&](const TensorView& source, bool is_on_device, size_t image, size_t row) {
    if (rows.row_bytes == 0) return;  // rows without elements have no memory
    const size_t source_row = source.shape[0] == 1 ? 0 : image;
    const std::byte* from = static_cast<const std::byte*>(source.data) + source_row * rows.row_bytes;
    std::erase_if(rows.on_device, [&](const auto& entry) { return entry.first == row; });
    if (is_on_device)
      rows.on_device.emplace_back(row, from);
    else
      std::memcpy(rows.data.data() + row * rows.row_bytes, from, rows.row_bytes);
  };
  const bool fills_negative = has_negative_ && item.negative.data != nullptr;
  check_rows(item.positive, "positive");
  if (fills_negative) check_rows(item.negative, "negative");
  for (const Group& group : groups_) {
    for (size_t i = 0; i < group.image_count; ++i) {
      const size_t image = group.first_image + i;
      place(item.positive, item.is_positive_on_device, image, group.positive_row + i);
      if (fills_negative) place(item.negative, item.is_negative_on_device, image, group.negative_row + i);
    }
  }
}

void Batch::replace(const Conditioning& item) {
  const auto found = std::find_if(conditioning_.begin(), conditioning_.end(),
                                  [&](const Rows& rows) { return rows.name == item.name; });
  check(found != conditioning_.end() && !found->is_scalar, code::kInvalidRequest, label_,
        ": the graph has no conditioning input \"", item.name, "\" with rows");
  fill(*found, item);
  const auto is_it = [&](const ort::TensorInfo& info) { return info.name == item.name; };
  if (prompt_graph_ && std::any_of(prompt_graph_->inputs().begin(), prompt_graph_->inputs().end(), is_it))
    hoist();
}

void Batch::hoist() {
  std::vector<Rows*> inputs;
  for (const ort::TensorInfo& info : prompt_graph_->inputs())
    inputs.push_back(&*std::find_if(conditioning_.begin(), conditioning_.end(),
                                    [&](const Rows& rows) { return rows.name == info.name; }));
  run_prompt_graph(prompt_graph_, inputs, row_count_, hoisted_);
}

void Batch::plan_runs(const Denoiser& denoiser, const std::vector<bool>& runs_both) {
  const size_t fixed = static_cast<size_t>(denoiser.fixed_rows());
  const auto add = [&](const Group& group, size_t row, size_t row_count, bool guided) {
    if (shares_input_) {
      runs_.push_back({row, row_count, guided, group.positive_row, group.image_count});
      return;
    }
    const size_t chunk = fixed ? fixed : row_count;
    check(row_count % chunk == 0, code::kInvalidRequest, label_, ": the graph takes exactly ", fixed,
          " rows a run, but ", row_count, " are needed (images times 2 with guidance)");
    for (size_t done = 0; done < row_count; done += chunk)
      runs_.push_back({row + done, chunk, guided, row + done, chunk});
  };
  const bool has_guided = std::find(runs_both.begin(), runs_both.end(), true) != runs_both.end();
  const bool has_plain = std::find(runs_both.begin(), runs_both.end(), false) != runs_both.end();
  for (const Group& group : groups_) {
    if (has_guided) add(group, group.negative_row, 2 * group.image_count, true);
    if (has_plain) add(group, group.positive_row, group.image_count, false);
  }
}

TensorView Batch::view(const Rows& rows, void* data, const Run& run) {
  auto* bytes = static_cast<std::byte*>(data);
  if (rows.is_scalar) return {bytes, rows.dtype, {}};
  return {bytes + run.row * rows.row_bytes, rows.dtype, with_rows(run.row_count, rows.row_shape)};
}

void Batch::fill_noise_level(const NoiseTable& levels, size_t evaluation, void* target) const {
  for (size_t row = 0; row < row_count_; ++row)
    std::memcpy(static_cast<std::byte*>(target) + row * levels.row_bytes(), levels.row(evaluation),
                levels.row_bytes());
}

}  // namespace textopia::engine
