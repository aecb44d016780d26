#include "ort/custom_op.h"

#include <algorithm>
#include <atomic>
#include <climits>
#include <exception>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "ort/custom_op_domain.h"

namespace textopia::ort {
namespace {

constexpr const char* kContext = "a custom operator";

void checked(const Runtime& library, abi::Status* status, const std::string& label, const char* what) {
  check_status(library.api, status, Activity::kLoad, label, what);
}

void checked_run(const Runtime& library, abi::Status* status) {
  check_status(library.api, status, Activity::kRun, kContext, "ONNX Runtime refused a call");
}

// Exceptions end here: ORT is called and calls back by a C ABI.
template <typename Body>
abi::Status* as_status(const Runtime& library, const Body& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const Error& error) {
    return library.api.CreateStatus(abi::kInvalidArgument, error.what());
  } catch (const std::bad_alloc&) {
    return library.api.CreateStatus(abi::kFail, "out of memory");
  } catch (const std::exception& error) {
    return library.api.CreateStatus(abi::kFail, error.what());
  }
}

Dims dims_of(const Runtime& library, const abi::ShapeInfo* info) {
  size_t rank = 0;
  checked_run(library, library.api.GetDimensionsCount(info, &rank));
  Dims dims(rank);
  checked_run(library, library.api.GetDimensions(info, dims.data(), rank));
  return dims;
}

DType dtype_of(const Runtime& library, const abi::ShapeInfo* info) {
  int type = 0;
  checked_run(library, library.api.GetTensorElementType(info, &type));
  return static_cast<DType>(type);
}

Tensor tensor_of(const Runtime& library, const abi::Value* value) {
  Tensor tensor;
  if (value == nullptr) return tensor;
  abi::ShapeInfo* raw = nullptr;
  checked_run(library, library.api.GetTensorTypeAndShape(value, &raw));
  const ShapeInfoHandle info(raw);
  tensor.dims = dims_of(library, raw);
  tensor.dtype = dtype_of(library, raw);
  void* data = nullptr;
  checked_run(library, library.api.GetTensorMutableData(const_cast<abi::Value*>(value), &data));
  static constexpr char kNothing = 0;  // a tensor without elements may have no memory
  tensor.data = data != nullptr ? data : &kNothing;
  return tensor;
}

// ORT tells "absent" and "of another type" apart by text alone.
bool is_absent(const Runtime& library, abi::Status* status) {
  const std::string cause = library.api.GetErrorMessage(status);
  return cause.find("No attribute") != std::string::npos || cause.find("not found") != std::string::npos;
}

template <typename T, typename Get>
T attribute(const Runtime& library, const std::string& node, const char* name, T fallback, const Get& get) {
  T value = fallback;
  abi::Status* status = get(&value);
  if (status == nullptr) return value;
  if (is_absent(library, status)) {
    library.api.ReleaseStatus(status);
    return fallback;
  }
  throw_status(library.api, status, Activity::kLoad, node, text("attribute '", name, "' cannot be read"));
}

// ORT's table of an op, and behind it what stands for the op here.
struct OpTable : abi::CustomOp {
  const Runtime* library = nullptr;
  const OpDefinition* definition = nullptr;
};

struct LiveKernel {
  const Runtime* library;
  std::unique_ptr<OpKernel> kernel;
};

const OpTable& table_of(const abi::CustomOp* op) { return *static_cast<const OpTable*>(op); }

OpTable make_table(const Runtime& library, const OpDefinition& definition) {
  OpTable table;
  static_cast<abi::CustomOp&>(table) = {};
  table.library = &library;
  table.definition = &definition;
  table.version = static_cast<uint32_t>(library.info.api_version);
  table.GetName = [](const abi::CustomOp* op) { return table_of(op).definition->name; };
  table.GetExecutionProviderType = [](const abi::CustomOp*) { return "CPUExecutionProvider"; };
  table.GetInputType = [](const abi::CustomOp*, size_t) { return abi::kAnyType; };
  table.GetInputTypeCount = [](const abi::CustomOp* op) { return table_of(op).definition->inputs; };
  table.GetOutputType = [](const abi::CustomOp*, size_t) { return abi::kAnyType; };
  table.GetOutputTypeCount = [](const abi::CustomOp*) { return size_t{1}; };
  table.GetInputCharacteristic = [](const abi::CustomOp* op, size_t index) {
    return index < table_of(op).definition->required_inputs ? abi::kRequired : abi::kOptional;
  };
  table.GetOutputCharacteristic = [](const abi::CustomOp*, size_t) { return abi::kRequired; };
  table.GetInputMemoryType = [](const abi::CustomOp*, size_t) { return abi::kMemoryDefault; };
  const auto one = [](const abi::CustomOp*) { return 1; };
  table.GetVariadicInputMinArity = table.GetVariadicInputHomogeneity = one;
  table.GetVariadicOutputMinArity = table.GetVariadicOutputHomogeneity = one;
  table.GetStartVersion = one;
  table.GetEndVersion = [](const abi::CustomOp*) { return INT_MAX; };
  table.CreateKernelV2 = [](const abi::CustomOp* op, const void*, const abi::KernelInfo* info,
                            void** kernel) {
    const OpTable& own = table_of(op);
    return as_status(*own.library, [&] {
      const NodeInfo node(*own.library, info, own.definition->name);
      *kernel = new LiveKernel{own.library, own.definition->create(node)};
    });
  };
  table.KernelComputeV2 = [](void* raw, abi::KernelContext* context) {
    const auto& live = *static_cast<const LiveKernel*>(raw);
    return as_status(*live.library, [&] {
      OpRun run(*live.library, context);
      live.kernel->run(run);
    });
  };
  table.KernelDestroy = [](void* raw) { delete static_cast<LiveKernel*>(raw); };
  table.InferOutputShapeFn = [](const abi::CustomOp* op, abi::ShapeInferContext* context) {
    const OpTable& own = table_of(op);
    return as_status(*own.library, [&] {
      ShapeQuery query(*own.library, context);
      own.definition->infer(query);
    });
  };
  return table;
}

struct Registry {
  std::mutex mutex;
  const char* domain_name = nullptr;
  std::span<const OpDefinition> definitions;
  std::vector<OpTable> tables;            // as ORT's domain, never freed: sessions point into them
  abi::CustomOpDomain* domain = nullptr;  // made at the first session
};

Registry& registry() {
  static Registry* const instance = new Registry;
  return *instance;
}

}  // namespace

Dims::Dims(std::initializer_list<int64_t> sizes) : Dims(sizes.size()) {
  std::copy(sizes.begin(), sizes.end(), sizes_.begin());
}

Dims::Dims(size_t rank) : rank_(rank) {
  check(rank <= kMostRank, code::kModelUnsupported, "a tensor has ", rank, " dimensions, allowed are up to ",
        kMostRank);
}

int64_t Dims::product(size_t first, size_t last) const {
  int64_t product = 1;
  for (size_t i = first; i < last; ++i) product *= sizes_[i];
  return product;
}

bool Dims::operator==(const Dims& other) const {
  return rank_ == other.rank_ && std::equal(sizes_.begin(), sizes_.begin() + rank_, other.sizes_.begin());
}

std::string to_string(const Dims& dims) {
  return textopia::to_string(Shape(dims.data(), dims.data() + dims.rank()));
}

NodeInfo::NodeInfo(const Runtime& library, const abi::KernelInfo* info, const char* op_name)
    : library_(library), info_(info), name_(op_name) {
  size_t size = 0;
  checked(library, library.api.KernelInfo_GetNodeName(info, nullptr, &size), name_, "its name");
  std::string node(size, '\0');
  checked(library, library.api.KernelInfo_GetNodeName(info, node.data(), &size), name_, "its name");
  name_ = text(op_name, " '", node.c_str(), "'");
}

int64_t NodeInfo::integer(const char* name, int64_t fallback) const {
  return attribute(library_, name_, name, fallback, [&](int64_t* value) {
    return library_.api.KernelInfoGetAttribute_int64(info_, name, value);
  });
}

float NodeInfo::number(const char* name, float fallback) const {
  return attribute(library_, name_, name, fallback, [&](float* value) {
    return library_.api.KernelInfoGetAttribute_float(info_, name, value);
  });
}

std::string NodeInfo::word(const char* name, const std::string& fallback) const {
  return attribute(library_, name_, name, fallback, [&](std::string* value) -> abi::Status* {
    size_t size = 0;
    const abi::Api& api = library_.api;
    if (abi::Status* status = api.KernelInfoGetAttribute_string(info_, name, nullptr, &size)) return status;
    value->assign(size, '\0');
    if (abi::Status* status = api.KernelInfoGetAttribute_string(info_, name, value->data(), &size))
      return status;
    value->resize(size > 0 ? size - 1 : 0);  // without the terminating zero
    return nullptr;
  });
}

bool NodeInfo::has_input(size_t input) const {
  size_t count = 0;
  checked(library_, library_.api.KernelInfo_GetInputCount(info_, &count), name_, "its inputs");
  if (input >= count) return false;
  abi::TypeInfo* type = nullptr;
  if (abi::Status* status = library_.api.KernelInfo_GetInputTypeInfo(info_, input, &type)) {
    library_.api.ReleaseStatus(status);
    return false;
  }
  library_.api.ReleaseTypeInfo(type);
  return true;
}

DType NodeInfo::input_type(size_t input) const {
  abi::TypeInfo* type = nullptr;
  checked(library_, library_.api.KernelInfo_GetInputTypeInfo(info_, input, &type), name_, "an input's type");
  const TypeInfoHandle handle(type);
  const abi::ShapeInfo* tensor = nullptr;
  checked(library_, library_.api.CastTypeInfoToTensorInfo(type, &tensor), name_, "an input's type");
  check(tensor != nullptr, code::kModelFormat, name_, ": input ", input, " is no tensor");
  return dtype_of(library_, tensor);
}

Tensor NodeInfo::constant(size_t input) const {
  if (!has_input(input)) return {};
  int is_constant = 0;
  const abi::Value* value = nullptr;
  checked(library_, library_.api.KernelInfoGetConstantInput_tensor(info_, input, &is_constant, &value), name_,
          "an input cannot be read");
  return is_constant != 0 ? tensor_of(library_, value) : Tensor{};
}

Tensor OpRun::input(size_t index) const {
  size_t count = 0;
  checked_run(library_, library_.api.KernelContext_GetInputCount(context_, &count));
  if (index >= count) return {};
  const abi::Value* value = nullptr;
  checked_run(library_, library_.api.KernelContext_GetInput(context_, index, &value));
  return tensor_of(library_, value);
}

void* OpRun::output(size_t index, const Dims& dims) {
  abi::Value* value = nullptr;
  checked_run(library_,
              library_.api.KernelContext_GetOutput(context_, index, dims.data(), dims.rank(), &value));
  void* data = nullptr;
  checked_run(library_, library_.api.GetTensorMutableData(value, &data));
  return data;
}

void OpRun::parallel(size_t count, void (*body)(const void*, size_t), const void* data) const {
  struct Job {
    void (*body)(const void*, size_t);
    const void* data;
    std::atomic_flag is_failed = ATOMIC_FLAG_INIT;
    std::exception_ptr failure;
  };
  if (count == 0) return;
  Job job{body, data, ATOMIC_FLAG_INIT, nullptr};
  const auto run = [](void* raw, size_t i) {
    Job& own = *static_cast<Job*>(raw);
    try {
      own.body(own.data, i);
    } catch (...) {
      if (!own.is_failed.test_and_set()) own.failure = std::current_exception();
    }
  };
  if (count == 1)
    run(&job, 0);
  else
    checked_run(library_, library_.api.KernelContext_ParallelFor(context_, run, count, 0, &job));
  if (job.failure) std::rethrow_exception(job.failure);
}

bool ShapeQuery::has_input(size_t index) const {
  size_t count = 0;
  checked_run(library_, library_.api.ShapeInferContext_GetInputCount(context_, &count));
  if (index >= count) return false;
  abi::ShapeInfo* info = nullptr;  // the context's own
  abi::Status* status = library_.api.ShapeInferContext_GetInputTypeShape(context_, index, &info);
  if (status != nullptr) library_.api.ReleaseStatus(status);
  return status == nullptr && info != nullptr;
}

DType ShapeQuery::dtype(size_t index) const {
  abi::ShapeInfo* info = nullptr;
  checked_run(library_, library_.api.ShapeInferContext_GetInputTypeShape(context_, index, &info));
  return dtype_of(library_, info);
}

Dims ShapeQuery::dims(size_t index) const {
  abi::ShapeInfo* info = nullptr;
  checked_run(library_, library_.api.ShapeInferContext_GetInputTypeShape(context_, index, &info));
  return dims_of(library_, info);
}

int64_t ShapeQuery::integer(const char* name, int64_t fallback) const {
  const abi::OpAttribute* found = nullptr;
  if (abi::Status* status = library_.api.ShapeInferContext_GetAttribute(context_, name, &found)) {
    library_.api.ReleaseStatus(status);
    return fallback;
  }
  int64_t value = fallback;
  size_t read = 0;
  checked_run(library_, library_.api.ReadOpAttr(found, abi::kIntegerAttribute, &value, sizeof(value), &read));
  return value;
}

void ShapeQuery::output(DType dtype, const Dims& wanted) {
  Dims dims = wanted;
  const abi::Api& api = library_.api;
  // ORT takes sizes of one name, or without any, for equal and lets tensors share memory: what is unknown
  // gets a name of its own.
  static std::atomic<uint64_t> count{0};
  std::array<const char*, Dims::kMostRank> symbols{}, own{};
  std::array<std::string, Dims::kMostRank> names;
  if (dims.rank() == this->dims(0).rank()) {
    abi::ShapeInfo* input = nullptr;
    checked_run(library_, api.ShapeInferContext_GetInputTypeShape(context_, 0, &input));
    checked_run(library_, api.GetSymbolicDimensions(input, symbols.data(), dims.rank()));
  }
  for (size_t i = 0; i < dims.rank(); ++i) {
    if (dims[i] == -1 && symbols[i] != nullptr) names[i] = symbols[i];
    if (dims[i] < 0 && names[i].empty()) names[i] = text("textopia_", ++count);
    own[i] = names[i].c_str();
    dims[i] = std::max<int64_t>(dims[i], -1);
  }
  abi::ShapeInfo* raw = nullptr;
  checked_run(library_, api.CreateTensorTypeAndShapeInfo(&raw));
  const ShapeInfoHandle info(raw);
  checked_run(library_, api.SetTensorElementType(raw, static_cast<int>(dtype)));
  checked_run(library_, api.SetDimensions(raw, dims.data(), dims.rank()));
  checked_run(library_, api.SetSymbolicDimensions(raw, own.data(), dims.rank()));
  checked_run(library_, api.ShapeInferContext_SetOutputTypeShape(context_, 0, raw));
}

void set_custom_ops(const char* domain, std::span<const OpDefinition> definitions) {
  Registry& own = registry();
  std::lock_guard lock(own.mutex);
  own.domain_name = domain;
  own.definitions = definitions;
}

void add_custom_ops(const Runtime& library, abi::SessionOptions* options, const std::string& label) {
  Registry& own = registry();
  std::lock_guard lock(own.mutex);
  if (own.domain_name == nullptr) return;
  if (own.domain == nullptr) {
    abi::CustomOpDomain* domain = nullptr;
    checked(library, library.api.CreateCustomOpDomain(own.domain_name, &domain), label,
            "the domain of our operators");
    std::vector<OpTable> tables;
    for (const OpDefinition& definition : own.definitions) tables.push_back(make_table(library, definition));
    own.tables = std::move(tables);
    for (const OpTable& table : own.tables)
      checked(library, library.api.CustomOpDomain_Add(domain, &table), label, "an operator of ours");
    own.domain = domain;
  }
  checked(library, library.api.AddCustomOpDomain(options, own.domain), label, "the domain of our operators");
}

}  // namespace textopia::ort
