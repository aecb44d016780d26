// A request laid out for its network, whatever the device: rows for guidance, conditioning in those rows, and
// the graph runs of a step.
#pragma once

#include <memory>
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
  // Rows that lie on the denoiser's GPU; a scalar never does, nor what a prompt graph reads.
  bool is_positive_on_device = false, is_negative_on_device = false;
};

// Images that run together. Rows of one group stand next to each other, the negative half first, so that a
// group is one contiguous batch with or without guidance.
struct Group {
  size_t first_image;
  size_t image_count;
  size_t negative_row;
  size_t positive_row;
};

// One run of the graph over rows that stand next to each other. Those of the sample are others where both
// halves of guidance share them.
struct Run {
  size_t row;
  size_t row_count;
  bool runs_both;
  size_t input_row;
  size_t input_count;

  bool operator==(const Run&) const = default;
};

class Batch {
 public:
  // `runs_both`: for every run of this request, whether both halves run. Throws invalid_request on shapes and
  // conditioning that do not fit the graph.
  Batch(const Denoiser& denoiser, const Shape& shape, const std::vector<Conditioning>& conditioning,
        const std::vector<bool>& runs_both);

  const std::vector<Group>& groups() const { return groups_; }
  const std::vector<Run>& runs() const { return runs_; }
  // As the caller gave it, and what the prompt graph made of it.
  std::vector<Rows>& conditioning() { return conditioning_; }
  std::vector<Rows>& hoisted() { return hoisted_; }
  const std::vector<Rows>& conditioning() const { return conditioning_; }
  const std::vector<Rows>& hoisted() const { return hoisted_; }
  // Whether the negative half reads the input rows of the positive one, and has none of its own.
  bool shares_input() const { return shares_input_; }
  // Another value of a conditioning input that has rows, of the shape that it has, in the same memory.
  void replace(const Conditioning& item);

  bool has_negative() const { return has_negative_; }
  size_t image_count() const { return image_count_; }
  size_t images_per_run() const { return images_per_run_; }
  size_t row_count() const { return row_count_; }
  size_t row_elements() const { return row_elements_; }
  Shape run_shape(size_t row_count) const;

  // The rows of `run` in `data`, which is laid out like rows.data.
  static TensorView view(const Rows& rows, void* data, const Run& run);
  // Writes one evaluation's row of `levels` once per row, at most row_count() * levels.row_bytes().
  void fill_noise_level(const NoiseTable& levels, size_t evaluation, void* target) const;

 private:
  void lay_out();
  void arrange(const Denoiser& denoiser, const std::vector<Conditioning>& conditioning);
  void fill(Rows& rows, const Conditioning& item);
  void hoist();
  void plan_runs(const Denoiser& denoiser, const std::vector<bool>& runs_both);

  std::string label_;
  Shape shape_;
  bool has_negative_;
  size_t image_count_;
  size_t row_elements_;
  size_t row_count_;
  size_t images_per_run_;
  bool shares_input_;
  std::shared_ptr<ort::Session> prompt_graph_;

  std::vector<Group> groups_;
  std::vector<Rows> conditioning_, hoisted_;
  std::vector<Run> runs_;
};

}  // namespace textopia::engine
