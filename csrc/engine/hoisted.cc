#include "engine/hoisted.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "cpu/convert.h"

namespace textopia::engine {
namespace {

// Truncates, as every exporter's own pipeline does. A conversion that does not fit would be undefined.
template <typename Integer>
Integer whole(double value, const std::string& label) {
  constexpr double kEnd = -static_cast<double>(std::numeric_limits<Integer>::min());
  check(value > -kEnd && value < kEnd, code::kInvalidRequest, label, ": the noise level ", value,
        " does not fit the graph's integer");
  return static_cast<Integer>(value);
}

Buffer<std::byte> converted(const std::vector<double>& levels, DType dtype, const std::string& label) {
  Buffer<std::byte> data(levels.size() * size_of(dtype));
  const auto fill = [&](auto convert) {
    using Element = decltype(convert(0.0));
    std::transform(levels.begin(), levels.end(), reinterpret_cast<Element*>(data.data()), convert);
  };
  switch (dtype) {
    case DType::kFloat64: fill([](double value) { return value; }); break;
    case DType::kInt64: fill([&](double value) { return whole<int64_t>(value, label); }); break;
    case DType::kInt32: fill([&](double value) { return whole<int32_t>(value, label); }); break;
    case DType::kFloat16:
      fill([](double value) {
        const float wide = static_cast<float>(value);
        uint16_t half;
        cpu::float_to_half(&wide, &half, 1);
        return half;
      });
      break;
    default: fill([](double value) { return static_cast<float>(value); });
  }
  return data;
}

Shape with_rows(size_t rows, const Shape& row_shape) {
  Shape shape{static_cast<int64_t>(rows)};
  shape.insert(shape.end(), row_shape.begin(), row_shape.end());
  return shape;
}

}  // namespace

TensorView Rows::view(size_t row, size_t count) {
  return {at(row), dtype, is_scalar ? Shape{} : with_rows(count, row_shape)};
}

NoiseTable::NoiseTable(const Denoiser& denoiser, const std::vector<double>& levels) {
  if (denoiser.time_graph()) {
    run_time_graph(denoiser, levels);
    return;
  }
  const DType dtype = denoiser.noise_level().dtype;
  row_bytes_ = size_of(dtype);
  data_ = converted(levels, dtype, denoiser.session()->label());
}

void NoiseTable::run_time_graph(const Denoiser& denoiser, std::vector<double> levels) {
  if (levels.empty()) return;
  const std::shared_ptr<ort::Session>& graph = denoiser.time_graph();
  const ort::TensorInfo& input = graph->inputs()[0];
  const ort::TensorInfo& features = denoiser.noise_level();
  const bool is_scalar = input.shape.empty();
  // All levels in one run, unless the export fixes how many there are.
  const size_t per_run = is_scalar            ? 1
                         : input.shape[0] > 0 ? static_cast<size_t>(input.shape[0])
                                              : levels.size();
  while (levels.size() % per_run != 0) levels.push_back(levels.back());
  Buffer<std::byte> told = converted(levels, input.dtype, graph->label());
  row_bytes_ = static_cast<size_t>(features.shape[1]) * size_of(features.dtype);
  data_ = Buffer<std::byte>(levels.size() * row_bytes_);
  for (size_t done = 0; done < levels.size(); done += per_run) {
    ort::Binding binding(graph);
    const Shape rows = is_scalar ? Shape{} : with_rows(per_run, {});
    binding.input(input.name, {told.data() + done * size_of(input.dtype), input.dtype, rows});
    binding.output(graph->outputs()[0].name, {data_.data() + done * row_bytes_, features.dtype,
                                              with_rows(per_run, {features.shape[1]})});
    binding.run();
  }
}

void run_prompt_graph(const std::shared_ptr<ort::Session>& graph, const std::vector<Rows*>& inputs,
                      size_t row_count, std::vector<Rows>& results) {
  int64_t fixed = 0;
  for (const ort::TensorInfo& info : graph->inputs())
    if (!info.shape.empty() && info.shape[0] > 0) fixed = info.shape[0];
  const size_t chunk = fixed ? static_cast<size_t>(fixed) : 1;
  check(row_count % chunk == 0, code::kInvalidRequest, graph->label(), ": the graph takes exactly ", fixed,
        " rows a run, but ", row_count, " are needed (images times 2 with guidance)");

  const auto are_equal = [&](size_t a, size_t b) {
    return std::all_of(inputs.begin(), inputs.end(), [&](Rows* rows) {
      return rows->is_scalar || std::memcmp(rows->at(a), rows->at(b), chunk * rows->row_bytes) == 0;
    });
  };
  const bool is_first = results.empty();
  ort::Binding binding(graph);
  for (const ort::TensorInfo& info : graph->outputs()) binding.output_allocated(info.name);
  for (size_t row = 0; row < row_count; row += chunk) {
    size_t same = 0;
    while (same < row && !are_equal(same, row)) same += chunk;
    if (same < row) {
      for (Rows& rows : results) std::memcpy(rows.at(row), rows.at(same), chunk * rows.row_bytes);
      continue;
    }
    for (Rows* rows : inputs) binding.input(rows->name, rows->view(row, chunk));
    binding.run();
    for (size_t i = 0; i < graph->outputs().size(); ++i) {
      const ort::TensorInfo& info = graph->outputs()[i];
      const TensorView found = binding.fetch(info.name);
      check(!found.shape.empty() && found.shape[0] == static_cast<int64_t>(chunk), code::kModelUnsupported,
            graph->label(), ": output \"", info.name, "\" has shape ", to_string(found.shape), " for ", chunk,
            " rows of the prompt");
      if (row == 0 && is_first) {
        const Shape row_shape(found.shape.begin() + 1, found.shape.end());
        const size_t row_bytes = byte_count(row_shape, size_of(info.dtype));
        results.push_back(
            {info.name, info.dtype, row_shape, false, row_bytes, Buffer<std::byte>(row_count * row_bytes)});
      }
      std::memcpy(results[i].at(row), found.data, chunk * results[i].row_bytes);
    }
  }
}

}  // namespace textopia::engine
