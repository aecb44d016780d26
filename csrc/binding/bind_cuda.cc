// GPUs: the driver, a device with its kernels, and single launches for checks and timing.
#include <cstring>
#include <map>

#include "base/error.h"
#include "binding/arrays.h"
#include "binding/bind.h"
#include "engine/gpu.h"

namespace py = pybind11;

namespace textopia::binding {
namespace {

using cuda::Driver;
using cuda::KernelImage;
using engine::Gpu;

std::shared_ptr<Driver> open_driver(const std::string& library) {
  py::gil_scoped_release no_gil;
  return std::const_pointer_cast<Driver>(Driver::open(library));
}

py::list devices_of(const Driver& driver) {
  py::list devices;
  for (const cuda::DeviceInfo& info : driver.devices()) {
    py::dict facts;
    facts["name"] = decode(info.name);
    facts["architecture"] = info.architecture;
    facts["multiprocessors"] = info.multiprocessors;
    facts["memory_bytes"] = info.memory_bytes;
    devices.append(facts);
  }
  return devices;
}

std::shared_ptr<Gpu> open_gpu(std::shared_ptr<Driver> driver, int ordinal, std::vector<KernelImage> kernels,
                              bool is_emulated) {
  py::gil_scoped_release no_gil;
  return std::make_shared<Gpu>(cuda::Device::open(std::move(driver), ordinal), std::move(kernels),
                               is_emulated);
}

// Runs one kernel: arrays are copied to the device and back, numbers are their bytes. Returns milliseconds
// per launch, the first one left out where there are several.
double run_kernel(const Gpu& gpu, const std::string& name, const std::array<size_t, 3>& grid,
                  const std::vector<py::object>& arguments, int repeats) {
  struct Argument {
    py::array array;  // none for a number
    cuda::DeviceBuffer buffer;
    std::vector<unsigned char> number;
    cuda::api::Pointer pointer = 0;
  };
  std::vector<Argument> given(arguments.size());
  cuda::Parameters parameters;
  std::unique_lock<std::mutex> turn;
  {
    py::gil_scoped_release no_gil;  // whoever has the turn may be waiting for the GIL
    turn = std::unique_lock(gpu.turn());
  }
  const cuda::CurrentDevice current(*gpu.device());
  const cuda::Kernel& kernel = gpu.kernels().get(name);
  for (size_t i = 0; i < arguments.size(); ++i) {
    Argument& argument = given[i];
    if (arguments[i].is_none()) {
      parameters.add(argument.pointer);
    } else if (py::isinstance<py::bytes>(arguments[i])) {
      const std::string bytes = arguments[i].cast<std::string>();
      argument.number.assign(bytes.begin(), bytes.end());
      parameters.add_bytes(argument.number.data(), argument.number.size());
    } else {
      argument.array = arguments[i].cast<py::array>();
      check(is_plain(argument.array) && argument.array.writeable(), code::kInvalidRequest, "kernel ", name,
            ": argument ", i, " is no writable contiguous array");
      const auto bytes = static_cast<size_t>(argument.array.nbytes());
      argument.buffer = cuda::DeviceBuffer(gpu.device(), bytes);
      cuda::upload(gpu.stream(), argument.buffer.get(), argument.array.data(), bytes);
      argument.pointer = argument.buffer.get();
      parameters.add(argument.pointer);
    }
  }
  const cuda::Event start(gpu.device(), true), end(gpu.device(), true);
  const cuda::Grid programs{grid[0], grid[1], grid[2]};
  if (repeats > 1) kernel.launch(gpu.stream(), programs, parameters);
  gpu.stream().record(start);
  for (int i = 0; i < repeats; ++i) kernel.launch(gpu.stream(), programs, parameters);
  gpu.stream().record(end);
  for (Argument& argument : given)
    if (argument.array)
      cuda::download(gpu.stream(), argument.array.mutable_data(), argument.pointer,
                     static_cast<size_t>(argument.array.nbytes()));
  gpu.stream().wait();
  return end.milliseconds_since(start) / repeats;
}

py::tuple memory_of(const Gpu& gpu) {
  const cuda::Device::Memory memory = gpu.device()->memory();
  return py::make_tuple(memory.free_bytes, memory.total_bytes);
}

}  // namespace

void register_cuda(py::module_& module) {
  py::class_<Driver, std::shared_ptr<Driver>>(module, "CudaDriver", "NVIDIA's driver, opened at run time.")
      .def(py::init(&open_driver), py::arg("library") = cuda::kDriverLibrary,
           "Raises ConfigurationError where there is no driver, or one that is too old.")
      .def_property_readonly("version", &Driver::version, "Of CUDA: 12040 for 12.4.")
      .def_property_readonly("library", &Driver::library)
      .def_property_readonly("devices", &devices_of,
                             "Per device: name, architecture (90 for 9.0), multiprocessors, memory_bytes.");

  py::class_<KernelImage>(module, "KernelImage", "A compiled kernel: one entry of an archive.")
      .def(py::init([](std::string name, std::string function, const py::bytes& cubin,
                       std::vector<uint8_t> parameter_bytes, int warps, int shared_bytes,
                       std::map<std::string, int> constants) {
             return KernelImage{
                 std::move(name), std::move(function), cubin, std::move(parameter_bytes), warps,
                 shared_bytes,    std::move(constants)};
           }),
           py::arg("name"), py::arg("function"), py::arg("cubin"), py::arg("parameter_bytes"), py::kw_only(),
           py::arg("warps"), py::arg("shared_bytes"), py::arg("constants"))
      .def_readonly("name", &KernelImage::name);

  py::class_<Gpu, std::shared_ptr<Gpu>>(module, "Gpu", "A GPU with a stream and the kernels of the loop.")
      .def(py::init(&open_gpu), py::arg("driver").none(false), py::arg("ordinal"), py::arg("kernels"),
           py::kw_only(), py::arg("is_emulated") = false,
           "is_emulated: the driver's device memory is the host's, and graphs run on the CPU (for tests).")
      .def_property_readonly("ordinal", [](const Gpu& gpu) { return gpu.device()->ordinal(); })
      .def_property_readonly("stream",
                             [](const Gpu& gpu) { return reinterpret_cast<uintptr_t>(gpu.stream().get()); })
      .def_property_readonly("is_lost", [](const Gpu& gpu) { return gpu.device()->is_lost(); })
      .def_property_readonly("memory", &memory_of, "Free and total bytes.")
      .def(
          "run_kernel", &run_kernel, py::arg("name"), py::arg("grid"), py::arg("arguments"), py::kw_only(),
          py::arg("repeats") = 1,
          "Arrays are copied to the device and back; numbers are given as their bytes, null as None. Returns "
          "milliseconds per launch.");
}

}  // namespace textopia::binding
