// Operators of ours inside ONNX Runtime, without its types: an op is a line of facts (OpDefinition), sees its
// node once (NodeInfo), and then one OpRun per run.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/tensor.h"
#include "ort/op_session.h"

namespace textopia::ort {

namespace abi {
struct Allocator;
struct KernelContext;
struct KernelInfo;
}  // namespace abi
struct Runtime;

// Sizes of a tensor without memory of its own. -1 stands for a size that is not known yet.
class Dims {
 public:
  static constexpr size_t kMostRank = 8;

  Dims() = default;
  Dims(std::initializer_list<int64_t> sizes);
  explicit Dims(size_t rank);  // all 0; throws Error{model_unsupported} above kMostRank

  size_t rank() const { return rank_; }
  int64_t& operator[](size_t i) { return sizes_[i]; }
  int64_t operator[](size_t i) const { return sizes_[i]; }
  int64_t back() const { return sizes_[rank_ - 1]; }
  int64_t& back() { return sizes_[rank_ - 1]; }
  int64_t* data() { return sizes_.data(); }
  const int64_t* data() const { return sizes_.data(); }
  int64_t product(size_t first, size_t last) const;  // of sizes first .. last - 1
  int64_t count() const { return product(0, rank_); }
  bool operator==(const Dims& other) const;

 private:
  std::array<int64_t, kMostRank> sizes_{};
  size_t rank_ = 0;
};

std::string to_string(const Dims& dims);

// A tensor that ORT owns; false where an optional input is absent.
struct Tensor {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  Dims dims;

  explicit operator bool() const { return data != nullptr; }
  template <typename T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
};

// Memory of a node's device between launches: from the session's arena, where all of it stays, so that a run
// that is captured allocates nothing. What is given back may be given out again at once, to work that is
// enqueued later on the same stream.
class Scratch {
 public:
  Scratch(const Runtime& library, abi::Allocator* allocator) : library_(library), allocator_(allocator) {}
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // Gives `body` memory of that size for as long as it runs. Throws out_of_memory.
  void with(size_t bytes, const std::function<void(void*)>& body) const;

 private:
  const Runtime& library_;
  abi::Allocator* allocator_;
};

// A node when its kernel is made. Errors of all functions name the node.
class NodeInfo {
 public:
  NodeInfo(const Runtime& library, const abi::KernelInfo* info, const char* op_name, DType activation_type);

  const std::string& name() const { return name_; }  // "Linear 'down/proj'"
  int64_t integer(const char* attribute, int64_t fallback) const;
  float number(const char* attribute, float fallback) const;
  std::string word(const char* attribute, const std::string& fallback) const;
  DType activation_type() const { return activation_type_; }
  Tensor constant(size_t input) const;  // false unless that input is a constant of the graph; its memory is
                                        // the device's
  bool has_input(size_t input) const;
  // As far as ORT knows it: -1 where a size is free, empty where nothing is known.
  Shape input_shape(size_t input) const;
  std::unique_ptr<Scratch> scratch() const;

 private:
  const Runtime& library_;
  const abi::KernelInfo* info_;
  std::string name_;
  DType activation_type_;
};

// One run of a node. Nothing here allocates, but what ORT itself does for outputs and shapes.
class OpRun {
 public:
  OpRun(const Runtime& library, const OpSession& session, abi::KernelContext* context)
      : library_(library), session_(session), context_(context) {}

  Tensor input(size_t index) const;
  void* output(size_t index, const Dims& dims);
  void* stream() const;  // of the provider, a CUstream; null on the CPU

  // body(data, 0) .. body(data, count - 1) on the threads of the session, each once, this thread among them.
  // The first exception of a body is thrown here after all have ended.
  void parallel(size_t count, void (*body)(const void*, size_t), const void* data) const;
  const OpSession& session() const { return session_; }

 private:
  const Runtime& library_;
  const OpSession& session_;
  abi::KernelContext* context_;
};

// A node ready to run. run() is called from many threads at once.
class OpKernel {
 public:
  virtual ~OpKernel() = default;
  virtual void run(OpRun& run) const = 0;
};

// What an input may be: of the type of the activations, as the output is; float32; or of any type.
enum class InputType { kActivation, kFloat32, kAny };

// There is no shape inference: ORT 1.23 fails on absent inputs there, and sizes are free anyhow.
struct OpDefinition {
  const char* name;
  size_t required_inputs;  // the first ones; the rest may be absent
  std::span<const InputType> inputs;
  // May throw Error: the session is refused.
  std::function<std::unique_ptr<OpKernel>(const NodeInfo& node)> create;
};

// The operators of one domain that a session knows. Each exists once for every type of activations: ORT then
// knows the type of the output and refuses graphs whose types do not fit.
struct OpSet {
  const char* domain;
  const char* provider;  // that runs them: "CPUExecutionProvider"
  std::vector<DType> activation_types;
  std::vector<OpDefinition> definitions;
};

// The operators of every session that is made from now on without a set of its own. Called once, before the
// first session.
void set_custom_ops(OpSet ops);

}  // namespace textopia::ort
