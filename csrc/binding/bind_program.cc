// Program: the instruction table of samplers/program.py, handed over as flat tuples.
#include "base/error.h"
#include "binding/bind.h"
#include "engine/program.h"

namespace py = pybind11;

namespace textopia::binding {
namespace {

using namespace engine;

Bank parse_bank(const py::handle& kind) {
  const auto letter = kind.cast<std::string>();
  check(letter == "x" || letter == "e", code::kInvalidRequest, "program: register kind \"", letter,
        "\", allowed are \"x\" and \"e\"");
  return letter == "x" ? Bank::kLatent : Bank::kOutput;
}

std::vector<Term> parse_terms(const py::handle& items) {
  std::vector<Term> terms;
  for (const py::handle item : items) {
    const auto term = item.cast<py::tuple>();
    terms.push_back({parse_bank(term[0]), term[1].cast<int>(), term[2].cast<double>()});
  }
  return terms;
}

Instruction parse_instruction(const py::tuple& row) {
  const auto name = row[0].cast<std::string>();
  const auto integer = [&](size_t i) { return row[i].cast<int>(); };
  const auto real = [&](size_t i) { return row[i].cast<double>(); };
  if (name == "denoise") return Denoise{integer(1), integer(2), real(3), real(4)};
  if (name == "combine") return Combine{integer(1), parse_terms(row[2]), real(3)};
  if (name == "clamp") return Clamp{integer(1), integer(2), real(3), real(4)};
  if (name == "langevin_step")
    return LangevinStep{integer(1), integer(2), integer(3), real(4), row[5].cast<std::string>() == "batch"};
  if (name == "blend") return Blend{integer(1), integer(2), real(3), real(4)};
  if (name == "step") return Step{integer(1), integer(2), parse_terms(row[3])};
  throw Error(code::kInvalidRequest, text("program: unknown instruction \"", name, "\""));
}

std::shared_ptr<Program> parse_program(const py::iterable& rows, int latents, int outputs, int result) {
  auto program = std::make_shared<Program>();
  for (const py::handle row : rows) {
    try {
      program->instructions.push_back(parse_instruction(row.cast<py::tuple>()));
    } catch (const py::cast_error&) {
      throw Error(code::kInvalidRequest, text("program, instruction ", program->instructions.size(),
                                              ": not an instruction: ", py::repr(row).cast<std::string>()));
    }
  }
  program->latent_count = latents;
  program->output_count = outputs;
  program->result = result;
  program->validate();
  return program;
}

}  // namespace

void register_program(py::module_& module) {
  py::class_<Program, std::shared_ptr<Program>>(module, "Program", "A validated instruction table.")
      .def(py::init(&parse_program), py::arg("instructions"), py::kw_only(), py::arg("latents"),
           py::arg("outputs"), py::arg("result"),
           "instructions: tuples as made by textopia_fast.samplers.Program.to_native(). Raises "
           "InvalidRequestError.")
      .def_property_readonly("denoise_count", &Program::count_denoise)
      .def_property_readonly("step_count", &Program::count_steps)
      .def_property_readonly("draws_noise", &Program::draws_noise)
      .def_property_readonly("blends", &Program::blends);
}

}  // namespace textopia::binding
