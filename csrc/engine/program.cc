#include "engine/program.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "cpu/combine.h"

namespace textopia::engine {
namespace {

// Follows a program once and knows which registers hold something.
class Validator {
 public:
  explicit Validator(const Program& program)
      : latents_(checked(program.latent_count)), outputs_(checked(program.output_count)) {
    check(program.latent_count >= 1, code::kInvalidRequest, "program: needs at least one latent register");
    latents_[0] = true;
  }

  void operator()(const Denoise& op) {
    read(Bank::kLatent, op.src);
    finite(op.scale_in);
    finite(op.noise_level);
    write(Bank::kOutput, op.dst);
  }
  void operator()(const Combine& op) {
    check(!op.terms.empty() || op.noise != 0.0, code::kInvalidRequest, where(), "an empty sum");
    read(op.terms);
    finite(op.noise);
    fits_kernel(op.terms, op.noise != 0.0);
    write(Bank::kLatent, op.dst);
  }
  void operator()(const Clamp& op) {
    check(op.low < op.high, code::kInvalidRequest, where(), "CLAMP needs low < high, got ", op.low, " and ",
          op.high);
    read(Bank::kLatent, op.src);
    write(Bank::kLatent, op.dst);
  }
  void operator()(const Threshold& op) {
    check(op.ratio >= 0.0 && op.ratio <= 1.0, code::kInvalidRequest, where(),
          "CLAMP needs a quantile 0..1, got ", op.ratio);
    check(op.high > 0.0 && std::isfinite(op.high), code::kInvalidRequest, where(),
          "CLAMP needs a positive largest bound, got ", op.high);
    read(Bank::kLatent, op.src);
    write(Bank::kLatent, op.dst);
  }
  void operator()(const Rescale& op) {
    check(op.phi >= 0.0 && op.phi <= 1.0, code::kInvalidRequest, where(), "RESCALE needs a share 0..1, got ",
          op.phi);
    read(Bank::kOutput, op.output);
  }
  void operator()(const LangevinStep& op) {
    check(op.factor > 0.0 && std::isfinite(op.factor), code::kInvalidRequest, where(),
          "LANGEVIN_STEP needs a positive factor, got ", op.factor);
    read(Bank::kLatent, op.src);
    read(Bank::kLatent, op.score);
    write(Bank::kLatent, op.dst);
  }
  void operator()(const Blend& op) {
    read(Bank::kLatent, op.src);
    finite(op.known);
    finite(op.noise);
    write(Bank::kLatent, op.dst);
  }
  void operator()(const Step& op) {
    read(Bank::kLatent, op.x);
    read(op.denoised);
    fits_kernel(op.denoised, false);
  }

  void read(Bank bank, int index) {
    const auto& written = bank == Bank::kLatent ? latents_ : outputs_;
    const char letter = bank == Bank::kLatent ? 'x' : bank == Bank::kOutput ? 'e' : 'u';
    check(index >= 0 && index < static_cast<int>(written.size()), code::kInvalidRequest, where(),
          "there is no register ", letter, index, ", only ", written.size(), " of that kind");
    check(written[index], code::kInvalidRequest, where(), "register ", letter, index,
          " is read before it is written");
  }

  int position = 0;

 private:
  static size_t checked(int count) {
    check(count >= 0 && count <= 4096, code::kInvalidRequest, "program: ", count,
          " registers, allowed are 0 to 4096");
    return static_cast<size_t>(count);
  }

  void read(const std::vector<Term>& terms) {
    for (const Term& term : terms) {
      read(term.bank, term.index);
      finite(term.weight);
    }
  }
  void write(Bank bank, int index) {
    auto& written = bank == Bank::kLatent ? latents_ : outputs_;
    check(index >= 0 && index < static_cast<int>(written.size()), code::kInvalidRequest, where(),
          "there is no register ", index, " to write to");
    written[index] = true;
  }
  // Under guidance an output is read as two sources, its negative half alone as one.
  void fits_kernel(const std::vector<Term>& terms, bool has_noise) const {
    int sources = has_noise ? 1 : 0;
    for (const Term& term : terms) sources += term.bank == Bank::kOutput ? 2 : 1;
    check(sources <= cpu::kMaxSources, code::kInvalidRequest, where(), "a sum of ", sources,
          " sources (network outputs count twice), allowed are ", cpu::kMaxSources);
  }
  void finite(double value) const {
    check(std::isfinite(value), code::kInvalidRequest, where(), "a weight is ", value,
          ", not a finite number");
  }
  std::string where() const { return text("program, instruction ", position, ": "); }

  std::vector<bool> latents_;
  std::vector<bool> outputs_;
};

template <typename Op>
int count_of(const Program& program) {
  return static_cast<int>(
      std::count_if(program.instructions.begin(), program.instructions.end(),
                    [](const Instruction& instruction) { return std::holds_alternative<Op>(instruction); }));
}

}  // namespace

void Program::validate() const {
  Validator validator(*this);
  for (const Instruction& instruction : instructions) {
    std::visit(validator, instruction);
    ++validator.position;
  }
  validator.read(Bank::kLatent, result);
}

int Program::count_denoise() const { return count_of<Denoise>(*this); }

std::vector<double> Program::noise_levels() const {
  std::vector<double> levels;
  levels.reserve(static_cast<size_t>(count_denoise()));
  for (const Instruction& instruction : instructions)
    if (const auto* denoise = std::get_if<Denoise>(&instruction)) levels.push_back(denoise->noise_level);
  return levels;
}

int Program::count_steps() const { return count_of<Step>(*this); }

bool Program::blends() const { return count_of<Blend>(*this) > 0; }

bool Program::thresholds() const { return count_of<Threshold>(*this) > 0; }

bool Program::rescales() const { return count_of<Rescale>(*this) > 0; }

std::vector<bool> Program::reads_uncond() const {
  std::vector<bool> is_read;
  is_read.reserve(static_cast<size_t>(count_denoise()));
  std::vector<size_t> writer(static_cast<size_t>(output_count));
  const auto note = [&](const std::vector<Term>& terms) {
    for (const Term& term : terms)
      if (term.bank == Bank::kUncond) is_read[writer[term.index]] = true;
  };
  for (const Instruction& instruction : instructions) {
    if (const auto* denoise = std::get_if<Denoise>(&instruction)) {
      writer[denoise->dst] = is_read.size();
      is_read.push_back(false);
    } else if (const auto* combine = std::get_if<Combine>(&instruction)) {
      note(combine->terms);
    } else if (const auto* step = std::get_if<Step>(&instruction)) {
      note(step->denoised);
    }
  }
  return is_read;
}

int Program::count_draws() const {
  return static_cast<int>(
      std::count_if(instructions.begin(), instructions.end(), [](const Instruction& instruction) {
        if (const auto* combine = std::get_if<Combine>(&instruction)) return combine->noise != 0.0;
        return std::holds_alternative<LangevinStep>(instruction);
      }));
}

bool Program::draws_noise() const { return count_draws() > 0; }

}  // namespace textopia::engine
