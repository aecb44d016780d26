// The denoiser made ready for requests on a GPU: everything that the graph reads and writes has a fixed
// address on the device. The loop's kernels write the input and the noise level, and read the outputs.
#pragma once

#include <memory>
#include <thread>
#include <vector>

#include "engine/batch.h"
#include "engine/gpu.h"

namespace textopia::engine {

class NetworkCuda {
 public:
  // For requests laid out as `batch` is, with up to `output_count` output registers. Throws as Network, and
  // out_of_memory. The device must be current.
  NetworkCuda(const Denoiser& denoiser, const Gpu& gpu, Batch batch, int output_count);

  // Whether that is so of this batch. Conditioning and noise levels may have other values.
  bool fits(const Batch& batch, int output_count) const;
  // What the graph reads of another batch that fits.
  void load(Batch batch);
  // Another value of a conditioning input, as Batch::replace; its host memory must live until the stream has
  // passed it.
  void replace(const Conditioning& item);

  const Batch& batch() const { return batch_; }
  const char* dtype() const;  // of the graph's sample, as in the names of kernels: "fp32", "fp16", "bf16"
  cuda::api::Pointer input() const { return input_.get(); }
  cuda::api::Pointer output(int index) const { return outputs_[static_cast<size_t>(index)].get(); }

  // Where the graph reads the noise level, or what a time graph made of it, and its size as whole words of
  // 4 bytes.
  cuda::api::Pointer level() const { return level_.get(); }
  int level_words() const { return level_words_; }
  // Time features are too much for a kernel to copy on the side: they are copied in front of a run.
  bool has_time_features() const { return has_time_features_; }

  // Enqueues the runs of the graph that read the input and write output register `index`. Allocates nothing
  // and does not wait, but for the first one where runs are captured.
  void run(int index, bool runs_both, ort::RunControl* control);

 private:
  std::vector<const Rows*> inputs() const;  // of the graph, beside the sample and the noise level
  void upload(size_t index);
  std::vector<ort::Binding> bind(const Denoiser& denoiser, const Run& run);

  const cuda::Stream& stream_;
  Batch batch_;
  DType dtype_;
  bool has_time_features_;
  std::thread::id thread_;  // whose runs are replayed: ORT captures for each thread anew
  std::vector<std::string> input_names_;
  int level_words_;
  cuda::DeviceBuffer input_, level_;
  std::vector<cuda::DeviceBuffer> outputs_;
  std::vector<cuda::DeviceBuffer> conditioning_;     // of inputs()
  std::vector<std::vector<ort::Binding>> bindings_;  // per run and output register; last, as in Network
};

}  // namespace textopia::engine
