// What a request computes once, before its first step. Where the graph compiler has split a network
// (python/textopia_fast/graph/split.py), graphs of their own turn the noise levels and the prompt into what
// the network in the loop takes; else the noise levels are only converted.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/tensor.h"
#include "engine/denoiser.h"

namespace textopia::engine {

// An input of a graph, arranged like the rows of a batch; a scalar has no rows.
struct Rows {
  std::string name;
  DType dtype;
  Shape row_shape;
  bool is_scalar;
  size_t row_bytes;
  Buffer<std::byte> data;
  // Rows that are not in `data`, and where on the device they are.
  std::vector<std::pair<size_t, const void*>> on_device = {};

  std::byte* at(size_t row) { return data.data() + (is_scalar ? 0 : row * row_bytes); }
  TensorView view(size_t row, size_t count);
};

// What the network is told about the noise, one row for each of its evaluations.
class NoiseTable {
 public:
  // Throws invalid_request on a level that does not fit the graph's integer, and what a graph run throws.
  NoiseTable(const Denoiser& denoiser, const std::vector<double>& levels);

  size_t row_bytes() const { return row_bytes_; }
  const std::byte* row(size_t evaluation) const { return data_.data() + evaluation * row_bytes_; }

 private:
  void run_time_graph(const Denoiser& denoiser, std::vector<double> levels);

  size_t row_bytes_ = 0;
  Buffer<std::byte> data_;
};

// Puts what the prompt graph makes of `row_count` rows of its inputs into `results`, whose memory stays where
// it is from the second time on. Rows are computed one at a time, so that none depends on its neighbours, and
// equal ones once.
void run_prompt_graph(const std::shared_ptr<ort::Session>& graph, const std::vector<Rows*>& inputs,
                      size_t row_count, std::vector<Rows>& results);

}  // namespace textopia::engine
