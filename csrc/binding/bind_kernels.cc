// The kernels by name of their ISA: for tests, benchmarks and `doctor`.
#include "base/error.h"
#include "base/isa.h"
#include "binding/arrays.h"
#include "binding/bind.h"
#include "cpu/combine.h"
#include "cpu/convert.h"
#include "cpu/threshold.h"

namespace py = pybind11;

namespace textopia::binding {
namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

// A C-contiguous array of T; anything else is an error, not a silent copy.
template <typename T>
void check_array_of(const py::array& array, const std::string& where) {
  if (py::isinstance<Array<T>>(array) && is_plain(array)) return;
  throw Error(code::kInvalidRequest, text(where, ": the dtype is ", std::string(py::str(array.dtype())),
                                          " or the array is strided or unaligned, C-contiguous ",
                                          std::string(py::str(py::dtype::of<T>())), " is needed"));
}

void check_range(size_t found, int limit, const char* what) {
  check(found >= 1 && found <= static_cast<size_t>(limit), code::kInvalidRequest, "combine: ", found, " ",
        what, " were given, 1 to ", limit, " are allowed");
}

void check_pairs(size_t arrays, size_t numbers, const char* what) {
  check(arrays == numbers, code::kInvalidRequest, "combine: ", arrays, " ", what,
        " for as many arrays, found ", numbers);
}

bool is_partial_overlap(const float* a, const float* b, size_t count) {
  return a != b && a < b + count && b < a + count;
}

void check_overlap(const cpu::CombineArgs& args) {
  for (int out = 0; out < args.output_count; ++out) {
    const float* output = args.outputs[out];
    bool is_overlap = false;
    for (int k = 0; k < args.source_count; ++k)
      is_overlap |= is_partial_overlap(args.sources[k], output, args.count);
    for (int k = 0; k < out; ++k)
      is_overlap |= args.outputs[k] == output || is_partial_overlap(args.outputs[k], output, args.count);
    check(!is_overlap, code::kInvalidRequest, "combine: output ", out,
          " overlaps another array; it may only be exactly a source");
  }
}

bool combine(const std::string& isa, const std::vector<py::array>& sources, const std::vector<float>& weights,
             const std::vector<float>& scales, std::vector<py::array> outputs) {
  const cpu::CombineFn kernel = cpu::combine_kernel(isa_named(isa));
  check_range(sources.size(), cpu::kMaxSources, "sources");
  check_range(outputs.size(), cpu::kMaxOutputs, "outputs");
  check_pairs(sources.size(), weights.size(), "weights are needed");
  check_pairs(outputs.size(), scales.size(), "scales are needed");
  cpu::CombineArgs args;
  args.count = static_cast<size_t>(sources[0].size());
  auto check_array = [&](const py::array& array, const char* what, size_t index) {
    check_array_of<float>(array, "combine");
    check(static_cast<size_t>(array.size()) == args.count, code::kInvalidRequest, "combine: ", what, " ",
          index, " has ", array.size(), " elements, source 0 has ", args.count);
  };
  for (size_t k = 0; k < sources.size(); ++k) {
    check_array(sources[k], "source", k);
    args.sources[k] = static_cast<const float*>(sources[k].data());
    args.weights[k] = weights[k];
  }
  args.source_count = static_cast<int>(sources.size());
  for (size_t k = 0; k < outputs.size(); ++k) {
    check_array(outputs[k], "output", k);
    check(outputs[k].writeable(), code::kInvalidRequest, "combine: output ", k, " is read-only");
    args.outputs[k] = static_cast<float*>(outputs[k].mutable_data());
    args.scales[k] = scales[k];
  }
  args.output_count = static_cast<int>(outputs.size());
  check_overlap(args);
  py::gil_scoped_release release;
  return kernel(args);
}

Array<float> threshold(const py::array& images, float ratio, float high) {
  check_array_of<float>(images, "threshold");
  check(images.ndim() == 2 && images.size() > 0, code::kInvalidRequest,
        "threshold: rows of one image each, not empty, are needed");
  check(ratio >= 0.0f && ratio <= 1.0f, code::kInvalidRequest, "threshold: the quantile is ", ratio,
        ", 0 to 1 is allowed");
  const auto count = static_cast<size_t>(images.shape(1));
  Array<float> limited({images.shape(0), images.shape(1)});
  std::vector<uint32_t> scratch(count);
  const auto* source = static_cast<const float*>(images.data());
  for (size_t done = 0; done < static_cast<size_t>(images.size()); done += count)
    cpu::threshold(source + done, limited.mutable_data() + done, count, ratio, high, scratch.data());
  return limited;
}

template <typename Source, typename Target>
using Member = void (*cpu::ConvertKernels::*)(const Source*, Target*, size_t);

template <typename Source, typename Target>
void bind_conversion(py::module_& module, const char* name, Member<Source, Target> member, const char* doc) {
  module.def(
      name,
      [name, member](const std::string& isa, const py::array& source) {
        const cpu::ConvertKernels& kernels = cpu::convert_kernels(isa_named(isa));
        check_array_of<Source>(source, name);
        Array<Target> target(std::vector<py::ssize_t>(source.shape(), source.shape() + source.ndim()));
        const auto* from = static_cast<const Source*>(source.data());
        Target* to = target.mutable_data();
        const size_t count = static_cast<size_t>(source.size());
        py::gil_scoped_release release;
        (kernels.*member)(from, to, count);
        return target;
      },
      py::arg("isa"), py::arg("source"), doc);
}

}  // namespace

void register_kernels(py::module_& module) {
  module.def("cpu_features", &cpu_features,
             "CPU features that the operating system has enabled, as list[str].");
  module.def(
      "supported_isas",
      [] {
        std::vector<std::string> names;
        for (Isa isa : supported_isas()) names.emplace_back(name_of(isa));
        return names;
      },
      "Names of the ISAs that this machine can run, best first.");
  module.def(
      "active_isa", [] { return name_of(active_isa()); },
      "The ISA in use: the best one, or TEXTOPIA_FORCE_ISA. Raises ConfigurationError when that is unknown "
      "here.");
  module.def("combine", &combine, py::arg("isa"), py::arg("sources"), py::arg("weights"), py::arg("scales"),
             py::arg("outputs"),
             "outputs[k] = scales[k] * sum(weights[i] * sources[i]) in float32; arrays are C-contiguous "
             "float32 of one "
             "size. Returns whether every sum is finite. Raises InvalidRequestError, ConfigurationError.");
  module.def(
      "threshold", &threshold, py::arg("images"), py::arg("ratio"), py::arg("high"),
      "Dynamic thresholding of float32 [B, n]: each row limited to [-s, s] and divided by s, the quantile "
      "`ratio` of its magnitudes, at least 1 and then at most `high`. Raises InvalidRequestError.");
  using cpu::ConvertKernels;
  bind_conversion<float, uint16_t>(module, "float_to_half", &ConvertKernels::float_to_half,
                                   "float32 to the bits of float16 (uint16), round to nearest even.");
  bind_conversion<uint16_t, float>(module, "half_to_float", &ConvertKernels::half_to_float,
                                   "The bits of float16 (uint16) to float32, exact.");
  bind_conversion<float, uint16_t>(module, "float_to_bfloat16", &ConvertKernels::float_to_bfloat16,
                                   "float32 to the bits of bfloat16 (uint16), round to nearest even.");
  bind_conversion<uint16_t, float>(module, "bfloat16_to_float", &ConvertKernels::bfloat16_to_float,
                                   "The bits of bfloat16 (uint16) to float32, exact.");
}

}  // namespace textopia::binding
