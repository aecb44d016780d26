// The denoiser made ready for one request on the CPU: buffers with fixed addresses and one binding per graph
// run of a step, all built before the first step.
#pragma once

#include <span>
#include <vector>

#include "base/buffer.h"
#include "engine/batch.h"

namespace textopia::engine {

class Network {
 public:
  // `output_count` output registers, and the noise level of every evaluation; otherwise as Batch.
  Network(const Denoiser& denoiser, const Shape& shape, const std::vector<Conditioning>& conditioning,
          int output_count, const std::vector<double>& noise_levels, const std::vector<bool>& runs_both);

  // Another value of a conditioning input that has rows, of the shape that it has.
  void replace(const Conditioning& item) { batch_.replace(item); }

  bool shares_input() const { return batch_.shares_input(); }
  bool has_negative() const { return batch_.has_negative(); }
  std::span<const Group> groups() const { return batch_.groups(); }
  size_t row_elements() const { return batch_.row_elements(); }
  float* input(size_t row) { return input_.data() + row * row_elements(); }
  float* output(int index, size_t row) { return outputs_[index].data() + row * row_elements(); }

  // Runs the graph on the input rows (both halves, or only the positive one) and leaves float32 rows in
  // output register `index`. `evaluation` counts from 0. Allocates nothing.
  void run(int index, bool runs_both, size_t evaluation, ort::RunControl* control);

 private:
  std::vector<ort::Binding> bind(const Denoiser& denoiser, const std::shared_ptr<ort::Session>& session,
                                 const Run& run);
  TensorView view(const Denoiser& denoiser, Rows& rows, const Run& run) const;

  Batch batch_;
  bool is_half_;
  Buffer<float> input_;
  std::vector<Buffer<float>> outputs_;
  Buffer<uint16_t> half_input_, half_output_;  // only for float16 graphs
  NoiseTable noise_levels_;                    // of all evaluations
  Buffer<std::byte> noise_level_;              // of this one, once per row
  std::vector<bool> is_end_;                   // per evaluation; empty where one network runs them all
  // Per run and output register, of the network and of the one for the ends; last, so that no binding
  // outlives the memory it uses.
  std::vector<std::vector<ort::Binding>> bindings_, end_bindings_;
};

}  // namespace textopia::engine
