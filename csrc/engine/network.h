// The denoiser made ready for one request: buffers with fixed addresses, rows laid out for guidance, and one
// binding per graph run of a step, all built before the first step.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/tensor.h"
#include "engine/denoiser.h"

namespace textopia::engine {

// A conditioning input of the graph. The first axis is B, or 1 for all images alike; scalars have no axis.
struct Conditioning {
  std::string name;
  TensorView positive;
  TensorView negative;  // data == nullptr when there is none
};

// Images that run together. Rows of one group stand next to each other, the negative half first, so that a
// group is one contiguous batch with or without guidance.
struct Group {
  size_t first_image;
  size_t image_count;
  size_t negative_row;
  size_t positive_row;
};

// Guidance 1 is the positive half itself, which then runs alone.
constexpr bool is_guided(double guidance) { return guidance != 1.0; }

class Network {
 public:
  // `output_count` output registers; `runs_both`: for every run of this request, whether both halves run.
  // Throws invalid_request on shapes and conditioning that do not fit the graph.
  Network(const Denoiser& denoiser, const Shape& shape, const std::vector<Conditioning>& conditioning,
          int output_count, const std::vector<bool>& runs_both);

  // Another value of a conditioning input that has rows, of the shape that it has.
  void replace(const Conditioning& item);

  bool has_negative() const { return row_count_ > image_count_; }
  std::span<const Group> groups() const { return groups_; }
  size_t row_elements() const { return row_elements_; }
  float* input(size_t row) { return input_.data() + row * row_elements_; }
  float* output(int index, size_t row) { return outputs_[index].data() + row * row_elements_; }

  // Runs the graph on the input rows (both halves, or only the positive one) and leaves float32 rows in
  // output register `index`. Allocates nothing.
  void run(int index, bool is_guided, double noise_level, ort::RunControl* control);

 private:
  struct Run {
    size_t row;
    size_t row_count;
    bool is_guided;
    std::vector<ort::Binding> bindings;  // one per output register
  };
  struct Rows {  // conditioning, arranged like the rows of the sample
    std::string name;
    DType dtype;
    Shape row_shape;
    bool is_scalar;
    size_t row_bytes;
    Buffer<std::byte> data;
  };

  void lay_out(size_t image_count, bool has_negative);
  void arrange(const Denoiser& denoiser, const std::vector<Conditioning>& conditioning, bool has_negative);
  void fill(Rows& rows, const Conditioning& item);
  void plan_runs(const Denoiser& denoiser, const std::vector<bool>& runs_both);
  void add_run(const Denoiser& denoiser, size_t row, size_t row_count, bool is_guided);
  void fill_noise_level(double value);

  std::string label_;
  Shape shape_;
  size_t image_count_;
  size_t row_elements_;
  size_t row_count_;
  int64_t images_per_run_;
  bool is_half_;
  DType noise_level_dtype_;

  std::vector<Group> groups_;
  std::vector<Rows> conditioning_;
  Buffer<float> input_;
  std::vector<Buffer<float>> outputs_;
  Buffer<uint16_t> half_input_, half_output_;  // only for float16 graphs
  Buffer<uint64_t> noise_level_;               // row_count values of up to 8 bytes
  std::vector<Run> runs_;                      // last, so that no binding outlives the memory it uses
};

}  // namespace textopia::engine
