// A view of a dense, row-major tensor that somebody else owns. Shape alphabet of the core:
// B images, C channels, H W latent height and width, T tokens, S steps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"

namespace textopia {

// Values are ONNX's element types, so that they cross the ONNX Runtime C ABI unchanged.
enum class DType : int {
  kFloat32 = 1,
  kUInt8 = 2,
  kInt8 = 3,
  kInt32 = 6,
  kInt64 = 7,
  kBool = 9,
  kFloat16 = 10,
  kFloat64 = 11,
  kBFloat16 = 16,
};

// Bytes of one element; 0 for a type that the core does not handle.
constexpr size_t size_of(DType type) {
  switch (type) {
    case DType::kUInt8:
    case DType::kInt8:
    case DType::kBool: return 1;
    case DType::kFloat16:
    case DType::kBFloat16: return 2;
    case DType::kFloat32:
    case DType::kInt32: return 4;
    case DType::kInt64:
    case DType::kFloat64: return 8;
  }
  return 0;
}

// "float32", "int64", ...: NumPy's names.
constexpr const char* name_of(DType type) {
  switch (type) {
    case DType::kFloat32: return "float32";
    case DType::kUInt8: return "uint8";
    case DType::kInt8: return "int8";
    case DType::kInt32: return "int32";
    case DType::kInt64: return "int64";
    case DType::kBool: return "bool";
    case DType::kFloat16: return "float16";
    case DType::kFloat64: return "float64";
    case DType::kBFloat16: return "bfloat16";
  }
  return "unsupported";
}

using Shape = std::vector<int64_t>;

inline std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i) text += ',';
    text += std::to_string(shape[i]);
  }
  text += ']';
  return text;
}

// Throws Error{invalid_request} on a negative size, and on more bytes than an address can count.
inline size_t byte_count(const Shape& shape, size_t element_bytes) {
  int64_t bytes = static_cast<int64_t>(element_bytes);
  bool is_possible = true;
  for (int64_t size : shape) is_possible &= size >= 0 && !__builtin_mul_overflow(bytes, size, &bytes);
  check(is_possible, code::kInvalidRequest, "shape ", to_string(shape),
        ": sizes must not be negative, nor their product larger than the address space");
  return static_cast<size_t>(bytes);
}

inline size_t element_count(const Shape& shape) { return byte_count(shape, 1); }

struct TensorView {
  void* data = nullptr;
  DType dtype = DType::kFloat32;
  Shape shape;

  size_t bytes() const { return byte_count(shape, size_of(dtype)); }
};

}  // namespace textopia
