// Program: the instruction table of tracing/program.py, handed over as flat tuples.
#include "base/error.h"
#include "binding/bind.h"
#include "engine/program.h"

namespace py = pybind11;

namespace textopia::binding {
namespace {

using namespace engine;

// Of what is quoted in a message.
constexpr size_t kLongestQuote = 80;

Bank parse_bank(const py::handle& kind) {
  const auto letter = kind.cast<std::string>();
  check(letter == "x" || letter == "e" || letter == "u", code::kInvalidRequest, "program: register kind \"",
        letter, "\", allowed are \"x\", \"e\" and \"u\"");
  return letter == "x" ? Bank::kLatent : letter == "e" ? Bank::kOutput : Bank::kUncond;
}

std::vector<Term> parse_terms(const py::handle& items) {
  std::vector<Term> terms;
  for (const py::handle item : items) {
    const auto term = item.cast<py::tuple>();
    check(term.size() == 3, code::kInvalidRequest, "program: a term of ", term.size(),
          " parts, (kind, index, weight) is needed");
    terms.push_back({parse_bank(term[0]), term[1].cast<int>(), term[2].cast<double>()});
  }
  return terms;
}

bool parse_is_batch(const py::handle& norm) {
  const auto name = norm.cast<std::string>();
  check(name == "batch" || name == "sample", code::kInvalidRequest, "program: norm per \"", name,
        "\", allowed are \"sample\" and \"batch\"");
  return name == "batch";
}

Instruction parse_instruction(const py::tuple& row) {
  const auto name = row[0].cast<std::string>();
  const auto is = [&](const char* known, size_t size) {
    if (name != known) return false;
    check(row.size() == size, code::kInvalidRequest, "program: \"", name, "\" with ", row.size() - 1,
          " operands, ", size - 1, " are needed");
    return true;
  };
  const auto integer = [&](size_t i) { return row[i].cast<int>(); };
  const auto real = [&](size_t i) { return row[i].cast<double>(); };
  if (is("denoise", 5)) return Denoise{integer(1), integer(2), real(3), real(4)};
  if (is("combine", 4)) return Combine{integer(1), parse_terms(row[2]), real(3)};
  if (is("clamp", 5)) return Clamp{integer(1), integer(2), real(3), real(4)};
  if (is("threshold", 5)) return Threshold{integer(1), integer(2), real(3), real(4)};
  if (is("rescale", 3)) return Rescale{integer(1), real(2)};
  if (is("langevin_step", 6))
    return LangevinStep{integer(1), integer(2), integer(3), real(4), parse_is_batch(row[5])};
  if (is("blend", 5)) return Blend{integer(1), integer(2), real(3), real(4)};
  if (is("step", 4)) return Step{integer(1), integer(2), parse_terms(row[3])};
  throw Error(code::kInvalidRequest, text("program: unknown instruction \"", name, "\""));
}

std::shared_ptr<Program> parse_program(const py::iterable& rows, int latents, int outputs, int result) {
  auto program = std::make_shared<Program>();
  for (const py::handle row : rows) {
    const auto fail = [&] {
      throw Error(code::kInvalidRequest,
                  text("program, instruction ", program->instructions.size(),
                       ": not an instruction: ", std::string(py::repr(row)).substr(0, kLongestQuote)));
    };
    try {
      program->instructions.push_back(parse_instruction(row.cast<py::tuple>()));
    } catch (const py::cast_error&) {
      fail();
    } catch (const py::error_already_set& error) {  // an empty tuple, terms that are no sequence
      if (!error.matches(PyExc_IndexError) && !error.matches(PyExc_TypeError)) throw;
      fail();
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
