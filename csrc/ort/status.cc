// ONNX Runtime's status values as errors of ours.
#include <algorithm>
#include <cctype>
#include <initializer_list>
#include <string_view>

#include "ort/handles.h"

namespace textopia::ort {
namespace {

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

bool contains_any(const std::string& text, std::initializer_list<std::string_view> parts) {
  return std::any_of(parts.begin(), parts.end(),
                     [&](std::string_view part) { return text.find(part) != std::string::npos; });
}

// The CUDA runtime's texts for errors that its context does not survive.
bool is_loss_of_device(const std::string& words) {
  return contains_any(words, {"an illegal memory access was encountered", "unspecified launch failure",
                              "an illegal instruction was encountered", "misaligned address",
                              "the launch timed out and was terminated", "device-side assert triggered",
                              "hardware stack error", "invalid program counter", "context is destroyed",
                              "operation not supported on global/shared address space",
                              "uncorrectable ecc error encountered", "uncorrectable nvlink error"});
}

// Of a call of CUDA or of one of its libraries, as ORT's provider words it.
constexpr std::string_view kCudaFailures[] = {"CUDA failure", "CUBLAS failure", "CUDNN failure",
                                              "CUDNN_FE failure"};

bool is_cuda_failure(const std::string& cause) {
  return std::any_of(std::begin(kCudaFailures), std::end(kCudaFailures),
                     [&](std::string_view part) { return cause.find(part) != std::string::npos; });
}

bool is_missing_cudnn(const std::string& words) { return contains_any(words, {"cudnn is unavailable"}); }

// ORT reports much by text alone: its error numbers are mostly the unspecific FAIL.
const char* code_of(int number, const std::string& cause, Activity activity) {
  const std::string words = lower(cause);
  if (is_loss_of_device(words)) return code::kDeviceLost;
  if (is_missing_cudnn(words)) return code::kConfiguration;
  if (contains_any(words, {"bad_alloc", "failed to allocate", "alloc_failed", "resource allocation failed",
                           "out of memory", "cannot allocate memory", "bad allocation",
                           "smaller than requested bytes"}))
    return code::kOutOfMemory;
  if (activity == Activity::kRun)
    return contains_any(words, {"invalid rank for input", "got invalid dimensions for input"})
               ? code::kInvalidRequest
               : code::kExecution;
  if (is_cuda_failure(cause)) return code::kExecution;
  if (contains_any(words, {"graph capture feature"})) return code::kConfiguration;
  if (activity == Activity::kSetup) return code::kConfiguration;
  if (contains_any(words, {"pthread_create"})) return code::kExecution;
  if (activity == Activity::kOther)
    return number == abi::kInvalidArgument ? code::kConfiguration : code::kExecution;
  if (number == abi::kNotImplemented ||
      contains_any(words,
                   {"is not a registered function/op", "no op registered for", "unsupported model ir version",
                    "is under development", "released onnx opset", "could not find an implementation for",
                    "fallback to cpu ep has been explicitly disabled"}))
    return code::kModelUnsupported;
  if (number == abi::kNoSuchFile ||
      contains_any(words, {"no such file or directory", "external data path does not exist"}))
    return code::kModelNotFound;
  return code::kModelFormat;
}

// Takes out of a line what comes before `part` from the first of ORT's source places on; false without both.
bool cut_before(std::string* line, std::string_view part) {
  const size_t place = line->find("/onnxruntime_src/");
  const size_t rest = place == std::string::npos ? place : line->find(part, place);
  if (rest == std::string::npos) return false;
  line->erase(place, rest - place);
  return true;
}

// ORT's exceptions begin with "/path/file.cc:12 result function(arguments) [ONNXRuntimeError] : 1 : FAIL : ",
// those of its CUDA provider end with " ; GPU=0 ; hostname=... ; file=... ; expr=...". Users want what is
// left.
std::string without_source_place(std::string line) {
  const size_t place = line.find("/onnxruntime_src/");
  int depth = 0;
  const bool is_cut = std::any_of(std::begin(kCudaFailures), std::end(kCudaFailures),
                                  [&](std::string_view part) { return cut_before(&line, part); });
  if (!is_cut && place != std::string::npos) {
    for (size_t i = line.find('(', place); i < line.size(); ++i) {
      if (line[i] == '(') ++depth;
      if (line[i] != ')' || --depth != 0) continue;
      const size_t rest = line.find_first_not_of(' ', i + 1);
      if (rest != std::string::npos) line.erase(place, rest - place);
      break;
    }
  }
  line.erase(std::min(line.find(" ; GPU="), line.size()));
  const size_t mark = line.find("[ONNXRuntimeError] : ");
  if (mark == std::string::npos) return line;
  size_t end = mark;
  for (int part = 0; part < 3 && end != std::string::npos; ++part) end = line.find(" : ", end + 1);
  return end == std::string::npos ? line : line.erase(mark, end + 3 - mark);
}

// The first line, cut where a message would stop being readable; details["cause"] has all of it.
std::string brief(const std::string& cause) {
  constexpr size_t kLongest = 300;
  const std::string line = without_source_place(cause.substr(0, cause.find('\n')));
  return line.size() <= kLongest ? line : line.substr(0, kLongest) + "...";
}

}  // namespace

void throw_status(const abi::Api& api, abi::Status* status, Activity activity, const std::string& label,
                  const std::string& context) {
  const int number = api.GetErrorCode(status);
  const char* message = api.GetErrorMessage(status);
  const std::string cause = message != nullptr ? message : "";
  api.ReleaseStatus(status);
  Error::Details details = {{"component", label}, {"cause", cause}};
  if (is_missing_cudnn(lower(cause))) details.emplace_back("hint", kCudaHint);
  throw Error(code_of(number, cause, activity), text(label, ": ", context, ": ", brief(cause)),
              std::move(details));
}

}  // namespace textopia::ort
