#include "binding/dlpack.h"

#include <array>

#include "base/error.h"

namespace py = pybind11;

namespace textopia::binding {
namespace {

using engine::DeviceArray;
using engine::Gpu;

// The structures of DLPack 1, from its specification.
constexpr int32_t kDeviceCuda = 2, kDeviceCudaManaged = 13;
constexpr uint64_t kReadOnly = 1;  // flags
constexpr uint32_t kMajorVersion = 1;
constexpr const char *kPlain = "dltensor", *kVersioned = "dltensor_versioned";

struct Place {
  int32_t type;
  int32_t ordinal;
};

struct ElementType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};

struct Tensor {
  void* data;
  Place device;
  int32_t rank;
  ElementType type;
  int64_t* shape;
  int64_t* strides;  // in elements; null: C-contiguous
  uint64_t byte_offset;
};

struct Managed {
  Tensor tensor;
  void* context;
  void (*deleter)(Managed*);
};

struct Version {
  uint32_t major;
  uint32_t minor;
};

struct ManagedVersioned {
  Version version;
  void* context;
  void (*deleter)(ManagedVersioned*);
  uint64_t flags;
  Tensor tensor;
};

struct KnownType {
  DType dtype;
  uint8_t code;  // 0 int, 1 unsigned, 2 float, 4 bfloat, 6 bool
};
constexpr std::array<KnownType, 9> kTypes = {{{DType::kFloat32, 2},
                                              {DType::kFloat16, 2},
                                              {DType::kFloat64, 2},
                                              {DType::kBFloat16, 4},
                                              {DType::kInt64, 0},
                                              {DType::kInt32, 0},
                                              {DType::kInt8, 0},
                                              {DType::kUInt8, 1},
                                              {DType::kBool, 6}}};

constexpr uint8_t bits_of(DType dtype) { return static_cast<uint8_t>(8 * size_of(dtype)); }

[[noreturn]] void refuse(const std::string& where, const std::string& found, const char* allowed,
                         Error::Details details = {}) {
  throw Error(code::kInvalidRequest, text(where, ": ", found, ", allowed ", allowed, "."),
              std::move(details));
}

// The producer's words for why it does not export.
[[noreturn]] void refuse_export(const std::string& where, const py::handle& value,
                                py::error_already_set& error) {
  if (!error.matches(PyExc_Exception)) throw;  // Ctrl-C
  refuse(where, text("got ", std::string(py::str(py::type::handle_of(value).attr("__name__")))),
         "are arrays that export themselves by DLPack", {{"cause", error.what()}});
}

std::optional<Place> place_of(const py::handle& value) {
  if (!py::hasattr(value, "__dlpack_device__")) return std::nullopt;
  try {
    const auto place = value.attr("__dlpack_device__")().cast<std::pair<int32_t, int32_t>>();
    return Place{place.first, place.second};
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_Exception)) throw;
  } catch (const py::cast_error&) {
  }
  return std::nullopt;
}

DType dtype_of(const ElementType& type, const std::string& where) {
  for (const KnownType& known : kTypes)
    if (type.lanes == 1 && type.code == known.code && type.bits == bits_of(known.dtype)) return known.dtype;
  refuse(where,
         text("elements of DLPack type ", int{type.code}, " with ", int{type.bits}, " bits in ",
              int{type.lanes}, " lanes"),
         "are plain numbers of at most 64 bits");
}

bool is_contiguous(const Tensor& tensor) {
  if (tensor.strides == nullptr) return true;
  int64_t wanted = 1;
  for (int32_t i = tensor.rank - 1; i >= 0; --i) {
    if (tensor.shape[i] == 0) return true;
    if (tensor.shape[i] > 1 && tensor.strides[i] != wanted) return false;
    wanted *= tensor.shape[i];
  }
  return true;
}

// Takes what the capsule holds: its end, in any thread, is the end of the caller's claim.
template <typename Kind>
std::shared_ptr<const void> take(PyObject* capsule, Kind* managed, const char* used) {
  if (PyCapsule_SetName(capsule, used) != 0) throw py::error_already_set();
  return std::shared_ptr<const void>(managed, [](const void* pointer) {
    const py::gil_scoped_acquire gil;  // a deleter of Python's may need it
    auto* taken = static_cast<Kind*>(const_cast<void*>(pointer));
    if (taken->deleter != nullptr) taken->deleter(taken);
  });
}

py::object ask(const py::object& value, uintptr_t stream) {
  const py::object method = value.attr("__dlpack__");
  try {
    return method(py::arg("stream") = stream, py::arg("max_version") = py::make_tuple(kMajorVersion, 0));
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;  // a library older than DLPack 1
  }
  return method(py::arg("stream") = stream);
}

template <typename Kind>
void free_capsule(PyObject* capsule, const char* name) {
  if (PyCapsule_IsValid(capsule, name) == 0) return;  // somebody has taken it
  auto* managed = static_cast<Kind*>(PyCapsule_GetPointer(capsule, name));
  managed->deleter(managed);
}

// What a capsule of ours points to; the consumer may free it in any thread, without the GIL.
template <typename Kind>
struct Exported {
  Kind managed{};
  Shape shape, strides;
  std::shared_ptr<const void> owner;
};

template <typename Kind>
Exported<Kind>* export_as(const DeviceArray& array) {
  auto* exported = new Exported<Kind>;
  exported->shape = array.shape();
  exported->strides.resize(array.shape().size());
  int64_t stride = 1;
  for (size_t i = array.shape().size(); i-- > 0; stride *= std::max<int64_t>(array.shape()[i], 1))
    exported->strides[i] = stride;
  exported->owner = array.owner();
  ElementType type{0, bits_of(array.dtype()), 1};
  for (const KnownType& known : kTypes)
    if (known.dtype == array.dtype()) type.code = known.code;
  exported->managed.tensor = {reinterpret_cast<void*>(array.data()),
                              {kDeviceCuda, array.gpu()->device()->ordinal()},
                              static_cast<int32_t>(array.shape().size()),
                              type,
                              exported->shape.data(),
                              exported->strides.data(),
                              0};
  exported->managed.context = exported;
  exported->managed.deleter = [](Kind* managed) { delete static_cast<Exported<Kind>*>(managed->context); };
  return exported;
}

py::object capsule_of(void* managed, const char* name, PyCapsule_Destructor destructor) {
  PyObject* capsule = PyCapsule_New(managed, name, destructor);
  if (capsule == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(capsule);
}

}  // namespace

bool is_on_gpu(const py::handle& value) {
  const std::optional<Place> place = place_of(value);
  return place && (place->type == kDeviceCuda || place->type == kDeviceCudaManaged);
}

DeviceArray import_array(std::shared_ptr<const Gpu> gpu, const py::object& value, const std::string& where) {
  py::object capsule;
  try {
    capsule = ask(value, reinterpret_cast<uintptr_t>(gpu->stream().get()));
  } catch (py::error_already_set& error) {
    refuse_export(where, value, error);
  }
  const Tensor* tensor = nullptr;
  std::shared_ptr<const void> owner;
  bool is_read_only = false;
  if (PyCapsule_IsValid(capsule.ptr(), kVersioned) != 0) {
    auto* managed = static_cast<ManagedVersioned*>(PyCapsule_GetPointer(capsule.ptr(), kVersioned));
    owner = take(capsule.ptr(), managed, "used_dltensor_versioned");
    if (managed->version.major != kMajorVersion)
      refuse(where, text("a capsule of DLPack ", managed->version.major), "is DLPack 1");
    tensor = &managed->tensor;
    is_read_only = (managed->flags & kReadOnly) != 0;
  } else if (PyCapsule_IsValid(capsule.ptr(), kPlain) != 0) {
    auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule.ptr(), kPlain));
    owner = take(capsule.ptr(), managed, "used_dltensor");
    tensor = &managed->tensor;
  } else {
    refuse(where, "what __dlpack__ returned is no capsule of DLPack", "are arrays that speak DLPack");
  }

  const Place& place = tensor->device;
  const int ordinal = gpu->device()->ordinal();
  if (place.type != kDeviceCuda && place.type != kDeviceCudaManaged)
    refuse(where, text("an array on device ", place.ordinal, " of DLPack's kind ", place.type),
           "are arrays on the CPU or on an NVIDIA GPU");
  if (place.ordinal != ordinal)
    throw Error(code::kInvalidRequest,
                text(where, ": an array on cuda:", place.ordinal,
                     ", allowed here are arrays on the CPU or on ", gpu->device()->label(), "."),
                {{"hint", "Move it there, or open the model with that device."}});
  const DType dtype = dtype_of(tensor->type, where);
  if (tensor->rank < 0 || (tensor->rank > 0 && tensor->shape == nullptr))
    refuse(where, text("a tensor of rank ", tensor->rank, " without a shape"), "is a valid DLPack tensor");
  Shape shape(tensor->shape, tensor->shape + tensor->rank);
  byte_count(shape, size_of(dtype));
  if (!is_contiguous(*tensor))
    throw Error(code::kInvalidRequest,
                text(where, ": an array of shape ", to_string(shape), " on ", gpu->device()->label(),
                     " that is not contiguous, allowed are C-contiguous arrays."),
                {{"hint", "torch: x.contiguous(); CuPy: cupy.ascontiguousarray(x)."}});
  const auto data = reinterpret_cast<uintptr_t>(tensor->data) + tensor->byte_offset;
  return DeviceArray(std::move(gpu), data, dtype, std::move(shape), std::move(owner), is_read_only);
}

py::object export_array(const DeviceArray& array, bool is_versioned) {
  if (!is_versioned) {
    if (array.is_read_only())
      throw py::buffer_error("a read-only array needs DLPack 1: ask with max_version=(1, 0)");
    auto* exported = export_as<Managed>(array);
    return capsule_of(&exported->managed, kPlain,
                      [](PyObject* capsule) { free_capsule<Managed>(capsule, kPlain); });
  }
  auto* exported = export_as<ManagedVersioned>(array);
  exported->managed.version = {kMajorVersion, 0};
  exported->managed.flags = array.is_read_only() ? kReadOnly : 0;
  return capsule_of(&exported->managed, kVersioned,
                    [](PyObject* capsule) { free_capsule<ManagedVersioned>(capsule, kVersioned); });
}

}  // namespace textopia::binding
