// Errors of the core. One C++ type carries a stable code; the binding turns it into the Python class
// of that code (python/textopia_fast/errors.py). Nothing below the binding prints, aborts or exits.
#pragma once

#include <exception>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace textopia {

// The codes are those of python/textopia_fast/errors.py: add, never rename.
namespace code {
inline constexpr const char* kInvalidRequest = "invalid_request";
inline constexpr const char* kModelNotFound = "model_not_found";
inline constexpr const char* kModelFormat = "model_format";
inline constexpr const char* kModelUnsupported = "model_unsupported";
inline constexpr const char* kConfiguration = "configuration";
inline constexpr const char* kExecution = "execution_failed";
inline constexpr const char* kDeviceLost = "device_lost";
inline constexpr const char* kOutOfMemory = "out_of_memory";
inline constexpr const char* kNumerical = "numerical";
inline constexpr const char* kCancelled = "cancelled";
inline constexpr const char* kDeadline = "deadline_exceeded";
inline constexpr const char* kEngineClosed = "engine_closed";
inline constexpr const char* kForkedProcess = "forked_process";
inline constexpr const char* kInternal = "internal";
}  // namespace code

class Error : public std::exception {
 public:
  using Details = std::vector<std::pair<std::string, std::string>>;

  Error(const char* code, std::string message, Details details = {})
      : code_(code), message_(std::move(message)), details_(std::move(details)) {}

  const char* what() const noexcept override { return message_.c_str(); }
  const char* code() const noexcept { return code_; }
  const Details& details() const noexcept { return details_; }

 private:
  const char* code_;
  std::string message_;
  Details details_;
};

// Text from parts: text("expected ", 4, " channels, got ", 3).
template <typename... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

// Throws Error{code} unless `condition` holds; the message says what was found and what is allowed.
template <typename... Parts>
void check(bool condition, const char* code, const Parts&... parts) {
  if (!condition) [[unlikely]]
    throw Error(code, text(parts...));
}

}  // namespace textopia
