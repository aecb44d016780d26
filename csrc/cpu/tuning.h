// Plans that were measured instead of computed: kept ones, and the measurement itself, which takes place
// inside the runs of a network, where caches are as cold as they will be.
#pragma once

#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "cpu/plan.h"

namespace textopia::cpu {

// Whether a product of this shape can run with this plan.
bool is_possible(const ProductShape& shape, const Plan& plan);

// The computed plan, and others near it that may be faster than the model of the machine believes. Each once,
// the computed one first.
std::vector<Plan> candidate_plans(const ProductShape& shape, const Machine& machine);

// Shapes that were measured have the plan that was best then; others a computed one.
class KeptPlans final : public PlanSource {
 public:
  using Entry = std::pair<ProductShape, Plan>;

  // Throws Error{invalid_request} where a plan is not possible for its shape.
  explicit KeptPlans(const std::vector<Entry>& entries);

  Plan plan(const ProductShape& shape, const Machine& machine) override;
  void took(const ProductShape&, const Plan&, double) override {}

 private:
  std::map<ProductShape, Plan> plans_;
};

// Gives each shape its candidates in turn and keeps their times. Candidates that stay behind are tried twice,
// the others five times.
class PlanTrials final : public PlanSource {
 public:
  struct Candidate {
    Plan plan;
    std::vector<double> seconds;
  };
  using Trials = std::map<ProductShape, std::vector<Candidate>>;  // the computed plan first

  Plan plan(const ProductShape& shape, const Machine& machine) override;
  void took(const ProductShape& shape, const Plan& plan, double seconds) override;

  Trials trials() const;
  int done() const;     // products that have run
  int missing() const;  // products that have to run until every candidate has been tried often enough

 private:
  mutable std::mutex mutex_;
  Trials trials_;
};

}  // namespace textopia::cpu
