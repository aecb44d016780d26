#include "ort/session.h"

#include <functional>
#include <string_view>

#include "base/threads.h"
#include "ort/custom_op_domain.h"
#include "ort/session_impl.h"

namespace textopia::ort {
namespace {

void add_cuda(const Runtime& library, abi::SessionOptions* session, const CudaOptions& options,
              bool captures_graphs, const std::string& label) {
  const abi::Api& api = library.api;
  const auto checked = [&](abi::Status* status) {
    check_status(api, status, Activity::kOther, label, "the CUDA provider of ONNX Runtime cannot be used");
  };
  try {
    abi::CudaProviderOptions* raw = nullptr;
    checked(api.CreateCUDAProviderOptions(&raw));
    const CudaOptionsHandle handle(raw);
    const std::string device = std::to_string(options.device);
    std::vector<const char*> keys = {"device_id"}, values = {device.c_str()};
    if (captures_graphs) {
      keys.push_back("enable_cuda_graph");
      values.push_back("1");
    }
    for (const auto& [key, value] : options.provider) {
      keys.push_back(key.c_str());
      values.push_back(value.c_str());
    }
    checked(api.UpdateCUDAProviderOptions(raw, keys.data(), values.data(), keys.size()));
    if (options.stream != nullptr)
      checked(api.UpdateCUDAProviderOptionsWithValue(raw, "user_compute_stream", options.stream));
    checked(api.SessionOptionsAppendExecutionProvider_CUDA_V2(session, raw));
  } catch (const Error& error) {
    if (error.code() == std::string_view(code::kDeviceLost)) throw;
    Error::Details details = error.details();
    if (std::string_view(error.what()).find("provider option") == std::string_view::npos)
      details.emplace_back("hint", kCudaHint);
    throw Error(code::kConfiguration, error.what(), std::move(details));
  }
  request_placement(library, session, label);
}

MemoryInfoHandle device_memory(const Runtime& library, const SessionOptions& options) {
  if (!options.cuda) return nullptr;
  abi::MemoryInfo* raw = nullptr;
  check_status(library.api,
               library.api.CreateMemoryInfo("Cuda", abi::kDeviceAllocator, options.cuda->device,
                                            abi::kMemoryDefault, &raw),
               Activity::kOther, options.label, "the memory of the device cannot be described");
  return MemoryInfoHandle(raw);
}

SessionOptionsHandle make_options(const Runtime& library, const SessionOptions& options,
                                  const OpDomain* ops) {
  const abi::Api& api = library.api;
  const std::string& label = options.label;
  check(options.threads >= 0, code::kConfiguration, label, ": threads = ", options.threads,
        ", allowed are 0 (one per usable CPU) and more");
  const int level = options.optimization_level;
  check((level >= 0 && level <= 3) || level == 99, code::kConfiguration, label,
        ": optimization_level = ", level, ", allowed are 0, 1, 2, 3 and 99");
  abi::SessionOptions* raw = nullptr;
  auto checked = [&](abi::Status* status, const char* context) {
    check_status(api, status, Activity::kOther, label, context);
  };
  checked(api.CreateSessionOptions(&raw), "session options cannot be made");
  SessionOptionsHandle handle(raw);
  checked(api.SetSessionExecutionMode(raw, abi::kSequential), "the execution mode cannot be set");
  checked(api.SetIntraOpNumThreads(raw, options.threads), "the number of threads cannot be set");
  checked(api.SetInterOpNumThreads(raw, 1), "the number of threads cannot be set");
  checked(api.SetSessionGraphOptimizationLevel(raw, level), "the optimization level cannot be set");
  checked(api.SetSessionLogSeverityLevel(raw, abi::kLogError), "the log level cannot be set");
  // Workers spin while a run lasts, which small nodes need, and stop when it ends: an idle session burns no
  // CPU.
  checked(api.AddSessionConfigEntry(raw, "session.force_spinning_stop", "1"), "a config entry cannot be set");
  if (!options.memory_pattern)
    checked(api.DisableMemPattern(raw), "the memory pattern cannot be switched off");
  if (options.cuda) add_cuda(library, raw, *options.cuda, options.captures_graphs, label);
  for (const auto& [key, value] : options.config)
    checked(api.AddSessionConfigEntry(raw, key.c_str(), value.c_str()), "a config entry cannot be set");
  if (ops != nullptr) ops->add_to(raw, label);
  if (options.plugin) add_plugin(library, *options.plugin, raw, label);
  return handle;
}

// Names go to Python and into messages. Sequences are checked for form, not for code points that nobody
// assigned.
bool is_utf8(const std::string& text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t length = lead < 0x80 ? 1 : lead >= 0xC2 && lead < 0xE0 ? 2 : (lead & 0xF0) == 0xE0 ? 3 : 4;
    if (length == 4 && (lead < 0xF0 || lead > 0xF4)) return false;
    if (i + length > text.size()) return false;
    uint32_t point = lead & (0xFF >> (length == 1 ? 1 : length + 1));
    for (size_t k = 1; k < length; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      if ((next & 0xC0) != 0x80) return false;
      point = point << 6 | (next & 0x3F);
    }
    if (length == 3 && (point < 0x800 || (point >= 0xD800 && point < 0xE000))) return false;
    if (length == 4 && (point < 0x10000 || point > 0x10FFFF)) return false;
    i += length;
  }
  return true;
}

class Border {
 public:
  Border(const Runtime& library, abi::Session* session, const std::string& label)
      : library_(library), session_(session), label_(label) {}

  std::vector<TensorInfo> inputs() const {
    const abi::Api& api = library_.api;
    return list(api.SessionGetInputCount, api.SessionGetInputName, api.SessionGetInputTypeInfo);
  }

  std::vector<TensorInfo> outputs() const {
    const abi::Api& api = library_.api;
    return list(api.SessionGetOutputCount, api.SessionGetOutputName, api.SessionGetOutputTypeInfo);
  }

 private:
  void checked(abi::Status* status) const {
    check_status(library_.api, status, Activity::kLoad, label_, "the inputs and outputs cannot be read");
  }

  template <typename Count, typename Name, typename Type>
  std::vector<TensorInfo> list(const Count& get_count, const Name& get_name, const Type& get_type) const {
    size_t count = 0;
    checked(get_count(session_, &count));
    std::vector<TensorInfo> infos;
    infos.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      char* name = nullptr;
      checked(get_name(session_, i, library_.allocator, &name));
      std::string copy(name);
      checked(library_.api.AllocatorFree(library_.allocator, name));
      abi::TypeInfo* type = nullptr;
      checked(get_type(session_, i, &type));
      const TypeInfoHandle handle(type);
      infos.push_back(describe(std::move(copy), type));
      check_names(infos.back());
    }
    return infos;
  }

  void check_names(const TensorInfo& info) const {
    bool is_valid = is_utf8(info.name);
    for (const std::string& symbol : info.symbols) is_valid = is_valid && is_utf8(symbol);
    if (!is_valid)
      throw Error(code::kModelFormat, text(label_, ": a name in the graph is not UTF-8"),
                  {{"component", label_}});
  }

  TensorInfo describe(std::string name, const abi::TypeInfo* type) const {
    const abi::Api& api = library_.api;
    TensorInfo info{std::move(name), DType{}, 0, {}, {}};
    const abi::ShapeInfo* tensor = nullptr;  // belongs to `type`
    checked(api.CastTypeInfoToTensorInfo(type, &tensor));
    if (tensor == nullptr) return info;  // a sequence, map or optional: nothing can be bound to it
    checked(api.GetTensorElementType(tensor, &info.onnx_type));
    info.dtype = static_cast<DType>(info.onnx_type);
    size_t rank = 0;
    checked(api.GetDimensionsCount(tensor, &rank));
    info.shape.resize(rank);
    info.symbols.resize(rank);
    if (rank == 0) return info;
    std::vector<const char*> symbols(rank, nullptr);
    checked(api.GetDimensions(tensor, info.shape.data(), rank));
    checked(api.GetSymbolicDimensions(tensor, symbols.data(), rank));
    for (size_t i = 0; i < rank; ++i) {
      if (info.shape[i] < 0) info.shape[i] = -1;
      if (info.shape[i] < 0 && symbols[i] != nullptr) info.symbols[i] = symbols[i];
    }
    return info;
  }

  const Runtime& library_;
  abi::Session* session_;
  const std::string& label_;
};

using Create = std::function<abi::Status*(const Runtime&, const abi::SessionOptions*, abi::Session**)>;

SessionHandle create_session(const Runtime& library, const SessionOptions& options, const OpDomain* ops,
                             const Create& create) {
  const SessionOptionsHandle made = make_options(library, options, ops);
  abi::Session* raw = nullptr;
  take_op_failure();  // of something else
  abi::Status* status = create(library, made.get(), &raw);
  if (const std::optional<Error> failure = take_op_failure(); failure && status != nullptr) {
    library.api.ReleaseStatus(status);
    Error::Details details = failure->details();
    details.emplace_back("component", options.label);
    throw Error(failure->code(), text(options.label, ": the graph cannot be loaded: ", failure->what()),
                std::move(details));
  }
  check_status(library.api, status, Activity::kLoad, options.label, "the graph cannot be loaded");
  return SessionHandle(raw);
}

// What ORT says where it cannot capture a graph: "This session cannot use the graph capture feature as
// requested by the user as the model has control flow nodes ..."; empty for other errors.
std::string no_capture_reason(const Error& error) {
  for (const auto& [key, value] : error.details()) {
    if (key != "cause" || value.find("graph capture feature") == std::string::npos) continue;
    constexpr std::string_view kWhy = "by the user as ";
    const size_t why = value.find(kWhy);
    return why == std::string::npos ? value : value.substr(why + kWhy.size());
  }
  return "";
}

// An input that a replay would not read anew: one that is brought to the host when it is bound. "" for none.
std::string find_host_input(const Runtime& library, abi::Session* session, const std::string& label) {
  const std::vector<TensorInfo> inputs = Border(library, session, label).inputs();
  std::vector<const abi::MemoryInfo*> memory(inputs.size());
  check_status(library.api, library.api.SessionGetMemoryInfoForInputs(session, memory.data(), memory.size()),
               Activity::kOther, label, "the places of its inputs cannot be read");
  for (size_t i = 0; i < inputs.size(); ++i) {
    int device = abi::kCpuDevice;
    library.api.MemoryInfoGetDeviceType(memory[i], &device);
    if (device == abi::kCpuDevice) return inputs[i].name;
  }
  return "";
}

std::shared_ptr<Session> load(SessionOptions options, const Create& create) {
  const Runtime& library = runtime();
  if (options.threads == 0) options.threads = usable_cpus();
  const std::optional<OpSet> set = options.ops ? *options.ops : default_ops();
  std::shared_ptr<const OpDomain> ops;
  if (set)
    ops =
        std::make_shared<OpDomain>(library, *set, OpSession{options.threads, options.context}, options.label);
  GraphCapture capture{options.captures_graphs, ""};
  SessionHandle handle;
  try {
    handle = create_session(library, options, ops.get(), create);
    if (options.captures_graphs && options.cuda) {
      const std::string host_input = find_host_input(library, handle.get(), options.label);
      if (!host_input.empty()) capture = {false, text("the host reads the input '", host_input, "'")};
    }
  } catch (const Error& error) {
    if (!options.captures_graphs) throw;
    capture = {false, no_capture_reason(error)};
    if (capture.reason.empty()) throw;
  }
  if (!capture.reason.empty()) {
    options.captures_graphs = false;
    handle.reset();
    handle = create_session(library, options, ops.get(), create);
  }
  abi::Session* raw = handle.get();
  if (options.cuda) check_placement(library, raw, options.label);
  const Border border(library, raw, options.label);
  return std::make_shared<SessionImpl>(library, ops, std::move(handle), options.label, border.inputs(),
                                       border.outputs(), options.cuda, device_memory(library, options),
                                       options.plugin.has_value(), std::move(capture));
}

}  // namespace

std::shared_ptr<Session> Session::from_file(const std::string& path, const SessionOptions& options) {
  return load(options, [&](const Runtime& library, const abi::SessionOptions* made, abi::Session** out) {
    return library.api.CreateSession(library.env, path.c_str(), made, out);
  });
}

std::shared_ptr<Session> Session::from_memory(const void* data, size_t bytes, const SessionOptions& options) {
  return load(options, [&](const Runtime& library, const abi::SessionOptions* made, abi::Session** out) {
    return library.api.CreateSessionFromArray(library.env, data, bytes, made, out);
  });
}

std::string names_of(const std::vector<TensorInfo>& infos) {
  std::string names;
  for (const TensorInfo& info : infos) names += (names.empty() ? "'" : ", '") + info.name + "'";
  return names.empty() ? "none" : names;
}

const TensorInfo& find_info(const std::vector<TensorInfo>& infos, const std::string& name, const char* kind,
                            const std::string& label) {
  for (const TensorInfo& info : infos)
    if (info.name == name) return info;
  throw Error(code::kInvalidRequest,
              text(label, ": the graph has no ", kind, " '", name, "', it has ", names_of(infos)),
              {{"component", label}, {"param", name}});
}

std::string onnx_type_name(int onnx_type) {
  static constexpr const char* kNames[] = {
      "no tensor", "float32", "uint8",   "int8",   "uint16", "int16",     "int32",      "int64",   "string",
      "bool",      "float16", "float64", "uint32", "uint64", "complex64", "complex128", "bfloat16"};
  if (onnx_type >= 0 && onnx_type < static_cast<int>(std::size(kNames))) return kNames[onnx_type];
  return text("ONNX element type ", onnx_type);
}

}  // namespace textopia::ort
