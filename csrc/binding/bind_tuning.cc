// Plans of products for Python: computed, kept, and measured. A shape is (rows, planes, halo, blocks, taps,
// panels, phases), a plan (rows, panels, chunk_steps), as in cpu/plan.h.
#include <tuple>
#include <utility>

#include "base/error.h"
#include "base/isa.h"
#include "binding/bind.h"
#include "cpu/tuning.h"

namespace py = pybind11;

namespace textopia::binding {
namespace {

using cpu::KeptPlans;
using cpu::Plan;
using cpu::PlanSource;
using cpu::PlanTrials;
using cpu::ProductShape;
using ShapeNumbers = std::tuple<int64_t, int64_t, int64_t, int64_t, int, int64_t, int>;
using PlanNumbers = std::tuple<int64_t, int64_t, int>;

ProductShape shape_from(const ShapeNumbers& numbers) {
  const ProductShape shape = std::make_from_tuple<ProductShape>(numbers);
  const bool is_shape = shape.rows >= 1 && shape.planes >= 1 && shape.halo >= 0 && shape.blocks >= 1 &&
                        shape.taps >= 1 && shape.panels >= 1 && shape.phases >= 1;
  check(is_shape, code::kInvalidRequest, "plans: a shape has numbers below 1");
  return shape;
}

ShapeNumbers numbers_of(const ProductShape& shape) {
  return {shape.rows, shape.planes, shape.halo, shape.blocks, shape.taps, shape.panels, shape.phases};
}

PlanNumbers numbers_of(const Plan& plan) { return {plan.rows, plan.panels, plan.chunk_steps}; }

cpu::Machine machine_of(int threads) {
  check(threads >= 1, code::kInvalidRequest, "plans: threads = ", threads, ", allowed are 1 and more");
  return cpu::Machine::here(active_matrix_unit(), threads);
}

std::vector<PlanNumbers> candidates(const ShapeNumbers& shape, int threads) {
  std::vector<PlanNumbers> plans;
  for (const Plan& plan : cpu::candidate_plans(shape_from(shape), machine_of(threads)))
    plans.push_back(numbers_of(plan));
  return plans;
}

std::shared_ptr<KeptPlans> keep(const std::vector<std::pair<ShapeNumbers, PlanNumbers>>& entries) {
  std::vector<KeptPlans::Entry> plans;
  for (const auto& [shape, plan] : entries)
    plans.emplace_back(shape_from(shape), std::make_from_tuple<Plan>(plan));
  return std::make_shared<KeptPlans>(plans);
}

py::list trials_of(const PlanTrials& trials) {
  py::list found;
  for (const auto& [shape, tried] : trials.trials()) {
    py::list plans;
    for (const PlanTrials::Candidate& candidate : tried)
      plans.append(py::make_tuple(numbers_of(candidate.plan), candidate.seconds));
    found.append(py::make_tuple(numbers_of(shape), plans));
  }
  return found;
}

}  // namespace

void register_tuning(py::module_& module) {
  py::class_<PlanSource, std::shared_ptr<PlanSource>>(module, "PlanSource",
                                                      "Where a session finds the plans of its products.");
  py::class_<KeptPlans, PlanSource, std::shared_ptr<KeptPlans>>(module, "KeptPlans",
                                                                "Plans for some shapes of products.")
      .def(py::init(&keep), py::arg("entries"),
           "Pairs of a shape and a plan. Raises InvalidRequestError for one that is not possible.");
  py::class_<PlanTrials, PlanSource, std::shared_ptr<PlanTrials>>(
      module, "PlanTrials", "Tries plans in turn while a session runs, and keeps their times.")
      .def(py::init())
      .def("trials", &trials_of,
           "(shape, [(plan, seconds of its runs)]) of every shape that ran, the computed plan first.")
      .def_property_readonly("done", &PlanTrials::done, "Products that have run.")
      .def_property_readonly("missing", &PlanTrials::missing,
                             "Products that have to run until every plan has been tried often enough.");
  module.def("candidate_plans", &candidates, py::arg("shape"), py::arg("threads"),
             "The plan that a session of so many threads computes with the active matrix unit, and those "
             "that tuning tries beside it.");
}

}  // namespace textopia::binding
