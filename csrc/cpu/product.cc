#include "cpu/product.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/workspace.h"
#include "cpu/plan.h"

namespace textopia::cpu {
namespace {

#include "cpu/quantise.h"

// What one task needs: its slab, the sums, and where rows come from and go to.
struct TaskMemory {
  TaskMemory(Carver& carver, const Grid& grid, int64_t blocks, int64_t rows)
      : plane_rows(padded_rows(rows) + 2 * grid.halo),
        // An odd number: blocks of channels must not all fall on the same sets of a cache.
        slab_rows(grid.planes * plane_rows | 1),
        slab(carver.take<uint16_t>(blocks * slab_rows * kStepChannels)),
        sums(carver.take<float>(padded_rows(rows) * kPanelColumns)),
        steps(carver.take<Step>(blocks * grid.taps)),
        sources(carver.take<int32_t>(grid.planes * plane_rows)),
        scales(carver.take<float>(grid.planes * plane_rows)),
        row_scales(carver.take<float>(rows)),
        targets(carver.take<int32_t>(rows)),
        images(carver.take<int32_t>(rows)) {}

  int64_t plane_rows;
  int64_t slab_rows;
  uint16_t* slab;
  float* sums;
  Step* steps;
  int32_t* sources;
  float* scales;      // of rows of the slab, int8 only
  float* row_scales;  // of rows of sums
  int32_t* targets;
  int32_t* images;
};

int words_of(const PanelShape& shape, int64_t block) {
  const int64_t left = shape.channels - block * shape.step_channels(), word = shape.step_channels() / 16;
  return static_cast<int>(std::min<int64_t>(ceil_div(left, word), 16));
}

// Bytes need one scale for all that one sum adds up: a row where there is one tap, else an image.
struct Scales {
  const Int8Kernels* kernels = nullptr;  // null: bfloat16
  const float* of_images = nullptr;      // null: found row by row
};

float* find_image_scales(const ProductArgs& args, const Grid& grid, const Int8Kernels& kernels,
                         const Parallel& parallel) {
  constexpr int64_t kPiece = 1 << 15;  // elements of a task
  const int64_t size = grid.in_height * grid.in_width * args.shape.channels;
  const int64_t pieces = ceil_div(size, kPiece);
  const auto cut = [&](Carver& carver) {
    RangeTask* ranges = carver.take<RangeTask>(static_cast<size_t>(grid.images * pieces));
    return std::pair(ranges, carver.take<float>(static_cast<size_t>(grid.images)));
  };
  Carver measure;
  cut(measure);
  Carver carver(thread_scratch(Scratch::kShared, measure.bytes()));
  const auto [ranges, scales] = cut(carver);
  parallel(static_cast<size_t>(grid.images * pieces), [&, ranges = ranges](size_t i) {
    const auto task = static_cast<int64_t>(i);
    const int64_t first = task % pieces * kPiece;
    ranges[i] = {args.x + task / pieces * size + first, std::min(kPiece, size - first), 0, 0};
    kernels.range(ranges[i]);
  });
  for (int64_t image = 0; image < grid.images; ++image) {
    uint16_t high = 0, low = 0;
    for (int64_t i = image * pieces; i < (image + 1) * pieces; ++i) {
      high = std::max(high, ranges[i].high);
      low = std::max(low, ranges[i].low);
    }
    scales[image] = scale_of(high, low, args.zero_point);
  }
  return scales;
}

void pack(const ProductArgs& args, const Grid& grid, const MatrixKernels& kernels, const Scales& scales,
          const TaskMemory& memory) {
  const int64_t rows = grid.planes * memory.plane_rows;
  const PackTask task = {args.x, args.shape.channels, memory.sources, rows, memory.slab, memory.slab_rows};
  if (scales.kernels == nullptr) return kernels.pack(task);
  if (scales.of_images != nullptr) {
    const int64_t pixels = grid.in_height * grid.in_width;
    for (int64_t r = 0; r < rows; ++r)
      memory.scales[r] = memory.sources[r] < 0 ? 0.0f : scales.of_images[memory.sources[r] / pixels];
  }
  scales.kernels->quantise({task, args.zero_point, memory.scales, scales.of_images != nullptr});
}

void run_task(const ProductArgs& args, const Grid& grid, const MatrixKernels& kernels, const Scales& scales,
              const Plan& plan, int64_t first, int64_t first_panel) {
  const int64_t blocks = args.shape.blocks();
  const int64_t rows = std::min(plan.rows, grid.places() - first);
  Carver measure;
  TaskMemory(measure, grid, blocks, rows);
  Carver carver(thread_scratch(Scratch::kTask, measure.bytes()));
  const TaskMemory memory(carver, grid, blocks, rows);

  // Rows behind the end of a range are there for whole tiles; what is made of them is dropped.
  for (int plane = 0; plane < grid.planes; ++plane) {
    int32_t* sources = memory.sources + plane * memory.plane_rows;
    grid.sources(plane, first - grid.halo, memory.plane_rows, sources);
  }
  pack(args, grid, kernels, scales, memory);

  ProductTask task{};
  task.slab = memory.slab;
  task.steps = memory.steps;
  task.step_count = static_cast<int>(blocks * grid.taps);
  task.chunk_steps = plan.chunk_steps;
  task.rows = static_cast<int>(rows);
  task.panel_elements = args.shape.panel_elements();
  task.first_panel = first_panel;
  task.panel_count = std::min(plan.panels, args.shape.panels() - first_panel);
  task.sums = memory.sums;
  task.row_scales = scales.of_images != nullptr ? memory.row_scales : memory.scales;
  task.zero_point = args.zero_point;
  task.out_rows = memory.targets;
  task.images = args.row_bias != nullptr ? memory.images : nullptr;
  task.bias = args.bias;
  task.row_bias = args.row_bias;
  task.row_bias_stride = args.has_one_row_bias ? 0 : args.shape.columns;
  task.residual = args.residual;
  task.out = args.out;
  task.columns = args.shape.columns;
  task.activation = args.activation;
  task.has_gates = args.shape.has_gates;
  for (int phase = 0; phase < grid.phases; ++phase) {
    task.panels = args.panels + phase * args.shape.elements();
    for (int64_t block = 0; block < blocks; ++block) {
      for (int t = 0; t < grid.taps; ++t) {
        const Grid::Tap& tap = grid.tap[phase][t];
        const int64_t row = block * memory.slab_rows + tap.plane * memory.plane_rows + grid.halo + tap.shift;
        memory.steps[block * grid.taps + t] = {static_cast<int32_t>(row * kStepChannels),
                                               words_of(args.shape, block)};
      }
    }
    grid.targets(phase, first, rows, memory.targets, memory.images);
    if (scales.of_images != nullptr)
      for (int64_t r = 0; r < rows; ++r) memory.row_scales[r] = scales.of_images[memory.images[r]];
    (scales.kernels != nullptr ? scales.kernels->product : kernels.product)(task);
  }
}

}  // namespace

Grid Grid::of_rows(int64_t rows) {
  Grid grid;
  grid.in_width = grid.width = grid.column_pitch = rows;
  return grid;
}

void Grid::sources(int plane, int64_t first, int64_t count, int32_t* rows) const {
  const int64_t odd_row = stride > 1 ? plane / 2 : 0, odd_column = stride > 1 ? plane % 2 : 0;
  for (int64_t i = 0; i < count;) {
    const int64_t place = first + i;
    if (place < 0 || place >= places()) {
      rows[i++] = -1;
      continue;
    }
    const int64_t line = place / column_pitch;
    const int64_t begin = place % column_pitch;
    const int64_t length = std::min(column_pitch - begin, count - i);
    const int64_t y = line % row_pitch * stride + odd_row;
    const int64_t row = (line / row_pitch * in_height + y) * in_width;
    for (int64_t x = begin; x < begin + length; ++x) {
      const int64_t column = x * stride + odd_column;
      rows[i++] = y < in_height && column < in_width ? static_cast<int32_t>(row + column) : -1;
    }
  }
}

void Grid::targets(int phase, int64_t first, int64_t count, int32_t* rows, int32_t* image) const {
  const int64_t scale = phases > 1 ? 2 : 1;
  for (int64_t i = 0; i < count;) {
    const int64_t line = (first + i) / column_pitch;
    const int64_t begin = (first + i) % column_pitch;
    const int64_t length = std::min(column_pitch - begin, count - i);
    const int64_t b = line / row_pitch, y = line % row_pitch;
    const int64_t row = ((b * height + y) * scale + phase / 2) * width * scale + phase % 2;
    for (int64_t x = begin; x < begin + length; ++x, ++i) {
      rows[i] = y < height && x < width ? static_cast<int32_t>(row + x * scale) : -1;
      image[i] = static_cast<int32_t>(b);
    }
  }
}

void multiply(const ProductArgs& args, const Grid& grid, MatrixUnit unit, const Parallel& parallel) {
  const MatrixKernels& kernels = *matrix_kernels(unit);
  ProductShape shape;
  shape.rows = grid.places();
  shape.planes = grid.planes;
  shape.halo = grid.halo;
  shape.blocks = args.shape.blocks();
  shape.taps = grid.taps;
  shape.panels = args.shape.panels();
  shape.phases = grid.phases;
  if (shape.rows == 0 || shape.panels == 0) return;
  Scales scales;
  if (args.shape.is_int8) {
    scales.kernels = int8_kernels(unit);
    if (grid.taps > 1) scales.of_images = find_image_scales(args, grid, *scales.kernels, parallel);
  }
  const Machine machine = Machine::here(unit, parallel.count());
  PlanSource* plans = parallel.plans();
  const Plan plan = plans != nullptr ? plans->plan(shape, machine) : plan_product(shape, machine);
  const auto start = std::chrono::steady_clock::now();
  const int64_t panel_groups = ceil_div(shape.panels, plan.panels);
  parallel(static_cast<size_t>(ceil_div(shape.rows, plan.rows) * panel_groups), [&](size_t i) {
    const auto task = static_cast<int64_t>(i);
    run_task(args, grid, kernels, scales, plan, task / panel_groups * plan.rows,
             task % panel_groups * plan.panels);
  });
  if (plans != nullptr) {
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    plans->took(shape, plan, elapsed.count());
  }
}

const MatrixKernels* matrix_kernels([[maybe_unused]] MatrixUnit unit) {
#ifdef TEXTOPIA_X86
  if (unit == MatrixUnit::kAmxBf16) return &matrix_kernels_amx_bf16();
  if (unit == MatrixUnit::kAvx512Bf16) return &matrix_kernels_avx512_bf16();
#endif
  return nullptr;
}

const Int8Kernels* int8_kernels([[maybe_unused]] MatrixUnit unit) {
#ifdef TEXTOPIA_X86
  if (!has_int8(unit)) return nullptr;
  if (unit == MatrixUnit::kAmxBf16) return &matrix_kernels_amx_int8();
  if (unit == MatrixUnit::kAvx512Bf16) return &matrix_kernels_avx512_vnni();
#endif
  return nullptr;
}

}  // namespace textopia::cpu
