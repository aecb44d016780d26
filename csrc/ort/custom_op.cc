#include "ort/custom_op.h"

#include <algorithm>
#include <atomic>
#include <climits>
#include <exception>
#include <mutex>
#include <new>
#include <optional>
#include <utility>

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

thread_local std::optional<Error> g_failure;

// Exceptions end here: ORT is called and calls back by a C ABI.
template <typename Body>
abi::Status* as_status(const Runtime& library, const Body& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const Error& error) {
    g_failure = error;
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

}  // namespace

// ORT's table of an op, and behind it what stands for the op here.
struct OpTable : abi::CustomOp {
  const Runtime* library = nullptr;
  const OpSession* session = nullptr;
  const OpSet* set = nullptr;
  const OpDefinition* definition = nullptr;
  DType activation_type = DType::kFloat32;
};

namespace {

struct LiveKernel {
  const OpTable* table;
  std::unique_ptr<OpKernel> kernel;
};

const OpTable& table_of(const abi::CustomOp* op) { return *static_cast<const OpTable*>(op); }

int onnx_type_of(const OpTable& table, InputType type) {
  switch (type) {
    case InputType::kActivation: return static_cast<int>(table.activation_type);
    case InputType::kFloat32: return static_cast<int>(DType::kFloat32);
    case InputType::kAny: break;
  }
  return abi::kAnyType;
}

OpTable make_table(const Runtime& library, const OpSession& session, const OpSet& set,
                   const OpDefinition& definition, DType activation_type) {
  OpTable table;
  static_cast<abi::CustomOp&>(table) = {};
  table.library = &library;
  table.session = &session;
  table.set = &set;
  table.definition = &definition;
  table.activation_type = activation_type;
  table.version = static_cast<uint32_t>(library.info.api_version);
  table.GetName = [](const abi::CustomOp* op) { return table_of(op).definition->name; };
  table.GetExecutionProviderType = [](const abi::CustomOp* op) { return table_of(op).set->provider; };
  table.GetInputType = [](const abi::CustomOp* op, size_t index) {
    return onnx_type_of(table_of(op), table_of(op).definition->inputs[index]);
  };
  table.GetInputTypeCount = [](const abi::CustomOp* op) { return table_of(op).definition->inputs.size(); };
  table.GetOutputType = [](const abi::CustomOp* op, size_t) {
    return onnx_type_of(table_of(op), InputType::kActivation);
  };
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
      const NodeInfo node(*own.library, info, own.definition->name, own.activation_type);
      *kernel = new LiveKernel{&own, own.definition->create(node)};
    });
  };
  table.KernelComputeV2 = [](void* raw, abi::KernelContext* context) {
    const auto& live = *static_cast<const LiveKernel*>(raw);
    return as_status(*live.table->library, [&] {
      OpRun run(*live.table->library, *live.table->session, context);
      live.kernel->run(run);
    });
  };
  table.KernelDestroy = [](void* raw) { delete static_cast<LiveKernel*>(raw); };
  return table;
}

struct Registry {
  std::mutex mutex;
  std::optional<OpSet> ops;
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

NodeInfo::NodeInfo(const Runtime& library, const abi::KernelInfo* info, const char* op_name,
                   DType activation_type)
    : library_(library), info_(info), name_(op_name), activation_type_(activation_type) {
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

Tensor NodeInfo::constant(size_t input) const {
  size_t count = 0;
  checked(library_, library_.api.KernelInfo_GetInputCount(info_, &count), name_, "its inputs");
  if (input >= count) return {};
  int is_constant = 0;
  const abi::Value* value = nullptr;
  checked(library_, library_.api.KernelInfoGetConstantInput_tensor(info_, input, &is_constant, &value), name_,
          "an input cannot be read");
  return is_constant != 0 ? tensor_of(library_, value) : Tensor{};
}

bool NodeInfo::has_input(size_t input) const {
  size_t count = 0, size = 0;
  checked(library_, library_.api.KernelInfo_GetInputCount(info_, &count), name_, "its inputs");
  if (input >= count) return false;
  checked(library_, library_.api.KernelInfo_GetInputName(info_, input, nullptr, &size), name_, "an input");
  return size > 1;  // with the terminating zero; what is absent has no name
}

Shape NodeInfo::input_shape(size_t input) const {
  abi::TypeInfo* type = nullptr;
  checked(library_, library_.api.KernelInfo_GetInputTypeInfo(info_, input, &type), name_, "an input");
  const TypeInfoHandle handle(type);
  const abi::ShapeInfo* tensor = nullptr;  // belongs to `type`
  checked(library_, library_.api.CastTypeInfoToTensorInfo(type, &tensor), name_, "an input");
  if (tensor == nullptr) return {};
  size_t rank = 0;
  checked(library_, library_.api.GetDimensionsCount(tensor, &rank), name_, "an input");
  Shape shape(rank);
  if (rank > 0) checked(library_, library_.api.GetDimensions(tensor, shape.data(), rank), name_, "an input");
  return shape;
}

std::unique_ptr<Scratch> NodeInfo::scratch() const {
  abi::Allocator* allocator = nullptr;
  checked(library_, library_.api.KernelInfoGetAllocator(info_, abi::kMemoryDefault, &allocator), name_,
          "scratch memory");
  return std::make_unique<Scratch>(library_, allocator);
}

Scratch::~Scratch() { const AllocatorHandle released(allocator_); }

void Scratch::with(size_t bytes, const std::function<void(void*)>& body) const {
  struct Block {
    const Runtime& library;
    abi::Allocator* allocator;
    void* memory = nullptr;

    ~Block() {
      abi::Status* status = memory ? library.api.AllocatorFree(allocator, memory) : nullptr;
      if (status != nullptr) library.api.ReleaseStatus(status);
    }
  } block{library_, allocator_};
  if (bytes > 0) checked_run(library_, library_.api.AllocatorAlloc(allocator_, bytes, &block.memory));
  body(block.memory);
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

void* OpRun::stream() const {
  void* stream = nullptr;
  checked_run(library_, library_.api.KernelContext_GetGPUComputeStream(context_, &stream));
  return stream;
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

std::optional<Error> take_op_failure() { return std::exchange(g_failure, std::nullopt); }

OpDomain::OpDomain(const Runtime& library, OpSet ops, OpSession session, const std::string& label)
    : library_(library), ops_(std::move(ops)), session_(std::move(session)) {
  for (const OpDefinition& definition : ops_.definitions)
    for (DType type : ops_.activation_types)
      tables_.push_back(make_table(library, session_, ops_, definition, type));
  abi::CustomOpDomain* domain = nullptr;
  checked(library, library.api.CreateCustomOpDomain(ops_.domain, &domain), label,
          "the domain of our operators");
  domain_.reset(domain);
  for (const OpTable& table : tables_)
    checked(library, library.api.CustomOpDomain_Add(domain, &table), label, "an operator of ours");
}

OpDomain::~OpDomain() = default;

void OpDomain::add_to(abi::SessionOptions* options, const std::string& label) const {
  checked(library_, library_.api.AddCustomOpDomain(options, domain_.get()), label,
          "the domain of our operators");
}

void set_custom_ops(OpSet ops) {
  Registry& own = registry();
  std::lock_guard lock(own.mutex);
  own.ops = std::move(ops);
}

std::optional<OpSet> default_ops() {
  Registry& own = registry();
  std::lock_guard lock(own.mutex);
  return own.ops;
}

}  // namespace textopia::ort
