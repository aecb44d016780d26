// The network of the loop: which tensors of an ONNX graph are the sample, the noise level, the conditioning
// and the result. epsilon, v, x0 and score networks differ only by scalars, which the tracer has already put
// into the program's weights.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/gpu.h"
#include "ort/session.h"

namespace textopia::engine {

struct DenoiserOptions {
  std::string sample = "sample";         // input  [rows, C, H, W], float32 or float16; bfloat16 on a GPU
  std::string noise_level = "timestep";  // input  scalar, [1] or [rows]; float16/32/64 or int32/64;
                                         //        with a time graph [rows, N] of its result
  std::string output = "out_sample";     // output [rows, C, H, W], dtype of the sample
  // Images per graph run; 0 = the whole batch. 1 makes every image independent of its neighbours bit for bit.
  int images_per_run = 0;
  // The sample has one row per image where the conditioning has one per image and half of guidance.
  bool shares_prefix = false;
};

// The graphs that the compiler has taken out of the loop; null where there is none.
struct HoistedGraphs {
  std::shared_ptr<ort::Session> time;    // noise levels [R] -> what the noise-level input takes, [R, N]
  std::shared_ptr<ort::Session> prompt;  // conditioning -> inputs of the network in the loop
  // The same network computed more exactly, for the first and last evaluations of a program, where an error
  // costs most: the first lay the picture out, what the last ones err stays in it.
  std::shared_ptr<ort::Session> ends;
};

class NetworkCuda;

class Denoiser {
 public:
  // Throws Error{model_unsupported} when the graph does not have such tensors.
  // `gpu`: where the loop runs, null for the CPU. Throws configuration unless the session runs there too.
  Denoiser(std::shared_ptr<ort::Session> session, DenoiserOptions options,
           std::shared_ptr<const Gpu> gpu = nullptr, HoistedGraphs hoisted = {});

  const std::shared_ptr<ort::Session>& session() const { return session_; }
  const DenoiserOptions& options() const { return options_; }
  const std::shared_ptr<const Gpu>& gpu() const { return gpu_; }
  const ort::TensorInfo& sample() const { return sample_; }
  const ort::TensorInfo& noise_level() const { return noise_level_; }
  const ort::TensorInfo& output() const { return output_; }
  const std::shared_ptr<ort::Session>& time_graph() const { return hoisted_.time; }
  const std::shared_ptr<ort::Session>& prompt_graph() const { return hoisted_.prompt; }
  const std::shared_ptr<ort::Session>& ends() const { return hoisted_.ends; }
  // Whether ends() runs evaluation `index` of `count`: a tenth of them at either end, at least one.
  bool is_end(size_t index, size_t count) const;
  // The other inputs, of the network and of the prompt graph, which the caller provides as conditioning.
  const std::vector<ort::TensorInfo>& conditioning() const { return conditioning_; }

  // The network of the last request on a GPU that captures its runs, for the next one of the same shapes:
  // what is captured holds its addresses. Whoever has the turn of the GPU may take it and put it back.
  std::shared_ptr<NetworkCuda>& kept_network() const { return kept_network_; }

  // Rows that the graph was exported for, or 0 when the batch size is free.
  int64_t fixed_rows() const { return fixed_rows_; }
  // Shape of the noise-level tensor for a run of `rows` rows of the sample.
  Shape noise_level_shape(int64_t rows) const;

 private:
  void check_hoisted() const;

  std::shared_ptr<ort::Session> session_;
  DenoiserOptions options_;
  std::shared_ptr<const Gpu> gpu_;
  HoistedGraphs hoisted_;
  ort::TensorInfo sample_, noise_level_, output_;
  std::vector<ort::TensorInfo> conditioning_;
  int64_t fixed_rows_ = 0;
  bool is_noise_level_per_row_ = false;
  mutable std::shared_ptr<NetworkCuda> kept_network_;  // last: it ends before its session and its GPU
};

}  // namespace textopia::engine
