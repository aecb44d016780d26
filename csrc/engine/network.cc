#include "engine/network.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "cpu/convert.h"

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

// Truncates, as every exporter's own pipeline does. A conversion that does not fit would be undefined.
template <typename Integer>
Integer whole(double value, const std::string& label) {
  constexpr double kEnd = -static_cast<double>(std::numeric_limits<Integer>::min());
  check(value > -kEnd && value < kEnd, code::kInvalidRequest, label, ": the noise level ", value,
        " does not fit the graph's integer");
  return static_cast<Integer>(value);
}

}  // namespace

Network::Network(const Denoiser& denoiser, const Shape& shape, const std::vector<Conditioning>& conditioning,
                 int output_count, const std::vector<bool>& runs_both)
    : label_(denoiser.session()->label()), shape_(shape) {
  const bool has_negative = std::find(runs_both.begin(), runs_both.end(), true) != runs_both.end();
  check(!shape.empty() && *std::min_element(shape.begin(), shape.end()) > 0, code::kInvalidRequest,
        "latents: shape ", to_string(shape), "; every size must be positive");
  check_fits(label_, denoiser.sample(), tail(shape));
  image_count_ = static_cast<size_t>(shape[0]);
  row_elements_ = element_count(tail(shape));
  row_count_ = image_count_ * (has_negative ? 2 : 1);
  const size_t elements = element_count(with_rows(row_count_, tail(shape)));
  is_half_ = denoiser.sample().dtype == DType::kFloat16;
  noise_level_dtype_ = denoiser.noise_level().dtype;
  // A graph exported for one batch size decides itself how many rows a run takes.
  images_per_run_ = denoiser.fixed_rows() ? 0 : denoiser.options().images_per_run;

  lay_out(image_count_, has_negative);
  input_ = Buffer<float>(elements);
  for (int i = 0; i < output_count; ++i) outputs_.emplace_back(elements);
  if (is_half_) {
    half_input_ = Buffer<uint16_t>(elements);
    half_output_ = Buffer<uint16_t>(elements);
  }
  noise_level_ = Buffer<uint64_t>(row_count_);
  arrange(denoiser, conditioning, has_negative);
  plan_runs(denoiser, runs_both);
}

void Network::lay_out(size_t image_count, bool has_negative) {
  const size_t group_size = images_per_run_ ? static_cast<size_t>(images_per_run_) : image_count;
  for (size_t first = 0; first < image_count; first += group_size) {
    const size_t count = std::min(group_size, image_count - first);
    const size_t row = first * (has_negative ? 2 : 1);
    groups_.push_back({first, count, row, has_negative ? row + count : row});
  }
}

void Network::arrange(const Denoiser& denoiser, const std::vector<Conditioning>& conditioning,
                      bool has_negative) {
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

    if (has_negative)
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

void Network::fill(Rows& rows, const Conditioning& item) {
  const auto check_rows = [&](const TensorView& source, const char* half) {
    check(!source.shape.empty() && tail(source.shape) == rows.row_shape && source.dtype == rows.dtype &&
              (source.shape[0] == 1 || source.shape[0] == static_cast<int64_t>(image_count_)),
          code::kInvalidRequest, label_, ": input \"", rows.name, "\", ", half, " half: shape ",
          to_string(source.shape), " for ", image_count_, " images with rows of shape ",
          to_string(rows.row_shape));
  };
  const auto place = [&](const TensorView& source, size_t image, size_t row) {
    if (rows.row_bytes == 0) return;  // rows without elements have no memory
    const size_t source_row = source.shape[0] == 1 ? 0 : image;
    std::memcpy(rows.data.data() + row * rows.row_bytes,
                static_cast<const std::byte*>(source.data) + source_row * rows.row_bytes, rows.row_bytes);
  };
  const bool fills_negative = has_negative() && item.negative.data != nullptr;
  check_rows(item.positive, "positive");
  if (fills_negative) check_rows(item.negative, "negative");
  for (const Group& group : groups_) {
    for (size_t i = 0; i < group.image_count; ++i) {
      place(item.positive, group.first_image + i, group.positive_row + i);
      if (fills_negative) place(item.negative, group.first_image + i, group.negative_row + i);
    }
  }
}

void Network::replace(const Conditioning& item) {
  const auto found = std::find_if(conditioning_.begin(), conditioning_.end(),
                                  [&](const Rows& rows) { return rows.name == item.name; });
  check(found != conditioning_.end() && !found->is_scalar, code::kInvalidRequest, label_,
        ": the graph has no conditioning input \"", item.name, "\" with rows");
  fill(*found, item);
}

void Network::plan_runs(const Denoiser& denoiser, const std::vector<bool>& runs_both) {
  const size_t fixed = static_cast<size_t>(denoiser.fixed_rows());
  const auto add = [&](size_t row, size_t row_count, bool guided) {
    const size_t chunk = fixed ? fixed : row_count;
    check(row_count % chunk == 0, code::kInvalidRequest, label_, ": the graph takes exactly ", fixed,
          " rows a run, but ", row_count, " are needed (images times 2 with guidance)");
    for (size_t done = 0; done < row_count; done += chunk) add_run(denoiser, row + done, chunk, guided);
  };
  const bool has_guided = std::find(runs_both.begin(), runs_both.end(), true) != runs_both.end();
  const bool has_plain = std::find(runs_both.begin(), runs_both.end(), false) != runs_both.end();
  for (const Group& group : groups_) {
    if (has_guided) add(group.negative_row, 2 * group.image_count, true);
    if (has_plain) add(group.positive_row, group.image_count, false);
  }
}

void Network::add_run(const Denoiser& denoiser, size_t row, size_t row_count, bool is_guided) {
  Run run{row, row_count, is_guided, {}};
  const Shape shape = with_rows(row_count, tail(shape_));
  const DType dtype = is_half_ ? DType::kFloat16 : DType::kFloat32;
  for (auto& output : outputs_) {
    ort::Binding binding(denoiser.session());
    const size_t offset = row * row_elements_;
    void* source = is_half_ ? static_cast<void*>(half_input_.data() + offset) : input_.data() + offset;
    void* target = is_half_ ? static_cast<void*>(half_output_.data() + offset) : output.data() + offset;
    binding.input(denoiser.sample().name, {source, dtype, shape});
    binding.input(denoiser.noise_level().name, {noise_level_.data(), noise_level_dtype_,
                                                denoiser.noise_level_shape(static_cast<int64_t>(row_count))});
    for (Rows& rows : conditioning_) {
      std::byte* data = rows.data.data() + (rows.is_scalar ? 0 : row * rows.row_bytes);
      binding.input(rows.name,
                    {data, rows.dtype, rows.is_scalar ? Shape{} : with_rows(row_count, rows.row_shape)});
    }
    binding.output(denoiser.output().name, {target, dtype, shape});
    run.bindings.push_back(std::move(binding));
  }
  runs_.push_back(std::move(run));
}

void Network::fill_noise_level(double value) {
  const auto fill = [&](auto element) {
    auto* values = reinterpret_cast<decltype(element)*>(noise_level_.data());
    std::fill_n(values, row_count_, element);
  };
  switch (noise_level_dtype_) {
    case DType::kFloat64: return fill(value);
    case DType::kInt64: return fill(whole<int64_t>(value, label_));
    case DType::kInt32: return fill(whole<int32_t>(value, label_));
    case DType::kFloat16: {
      const float wide = static_cast<float>(value);
      uint16_t half;
      cpu::float_to_half(&wide, &half, 1);
      return fill(half);
    }
    default: return fill(static_cast<float>(value));
  }
}

void Network::run(int index, bool is_guided, double noise_level, ort::RunControl* control) {
  fill_noise_level(noise_level);
  for (Run& run : runs_) {
    if (run.is_guided != is_guided) continue;
    const size_t offset = run.row * row_elements_, count = run.row_count * row_elements_;
    if (is_half_) cpu::float_to_half(input_.data() + offset, half_input_.data() + offset, count);
    run.bindings[index].run(control);
    if (is_half_) cpu::half_to_float(half_output_.data() + offset, outputs_[index].data() + offset, count);
  }
}

}  // namespace textopia::engine
