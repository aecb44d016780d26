// The denoiser made ready for one request: buffers with fixed addresses, rows laid out for guidance, and one
// binding per graph run of a step, all built before the first step.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/tensor.h"
#include "engine/denoiser.h"
#include "engine/hoisted.h"

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
  // `output_count` output registers; for every evaluation of this request its noise level, and in `runs_both`
  // whether both halves run. Throws invalid_request on shapes, conditioning and levels that do not fit the
  // graph.
  Network(const Denoiser& denoiser, const Shape& shape, const std::vector<Conditioning>& conditioning,
          int output_count, const std::vector<double>& noise_levels, const std::vector<bool>& runs_both);

  // Another value of a conditioning input that has rows, of the shape that it has.
  void replace(const Conditioning& item);

  bool has_negative() const { return row_count_ > image_count_; }
  std::span<const Group> groups() const { return groups_; }
  size_t row_elements() const { return row_elements_; }
  // Whether the negative half reads the input rows of the positive one, and has none of its own.
  bool shares_input() const { return shares_input_; }
  float* input(size_t row) { return input_.data() + row * row_elements_; }
  float* output(int index, size_t row) { return outputs_[index].data() + row * row_elements_; }

  // Runs the graph on the input rows (both halves, or only the positive one) and leaves float32 rows in
  // output register `index`. `evaluation` counts from 0. Allocates nothing.
  void run(int index, bool is_guided, size_t evaluation, ort::RunControl* control);

 private:
  struct Run {
    size_t row;
    size_t row_count;
    size_t input_row;
    size_t input_count;
    bool is_guided;
    std::vector<ort::Binding> bindings;  // one per output register
  };

  void lay_out(size_t image_count, bool has_negative);
  void arrange(const Denoiser& denoiser, const std::vector<Conditioning>& conditioning, bool has_negative);
  void hoist();
  TensorView view(const Denoiser& denoiser, Rows& rows, const Run& run);
  void fill(Rows& rows, const Conditioning& item);
  void plan_runs(const Denoiser& denoiser, const std::vector<bool>& runs_both);
  void add_run(const Denoiser& denoiser, Run run);

  std::string label_;
  Shape shape_;
  size_t image_count_;
  size_t row_elements_;
  size_t row_count_;
  int64_t images_per_run_;
  bool is_half_;
  bool shares_input_;

  std::vector<Group> groups_;
  std::vector<Rows> conditioning_;  // as the caller gave it
  std::vector<Rows> hoisted_;       // what the prompt graph made of it
  std::shared_ptr<ort::Session> prompt_graph_;
  Buffer<float> input_;
  std::vector<Buffer<float>> outputs_;
  Buffer<uint16_t> half_input_, half_output_;  // only for float16 graphs
  NoiseTable noise_levels_;                    // of all evaluations
  Buffer<std::byte> noise_level_;              // of this one, once for each row
  std::vector<Run> runs_;                      // last, so that no binding outlives the memory it uses
};

}  // namespace textopia::engine
