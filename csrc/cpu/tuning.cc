#include "cpu/tuning.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "cpu/panels.h"

namespace textopia::cpu {
namespace {

constexpr size_t kFirstRounds = 2, kRounds = 5;
constexpr double kStillInTheRace = 1.1;  // times the best; runs of one product scatter by a few per cent

double best_of(const PlanTrials::Candidate& candidate) {
  double best = std::numeric_limits<double>::infinity();
  for (double seconds : candidate.seconds) best = std::min(best, seconds);
  return best;
}

// How often a candidate still has to be tried, for each of them.
std::vector<size_t> missing_of(const std::vector<PlanTrials::Candidate>& candidates) {
  double best = std::numeric_limits<double>::infinity();
  bool is_first_part = false;
  for (const PlanTrials::Candidate& candidate : candidates) {
    best = std::min(best, best_of(candidate));
    is_first_part |= candidate.seconds.size() < kFirstRounds;
  }
  std::vector<size_t> missing;
  for (size_t i = 0; i < candidates.size(); ++i) {
    // The computed plan is what the others are compared with: it stays.
    const bool is_in = is_first_part || i == 0 || best_of(candidates[i]) <= kStillInTheRace * best;
    const size_t rounds = is_first_part ? kFirstRounds
                          : is_in       ? kRounds
                                        : 0,
                 had = candidates[i].seconds.size();
    missing.push_back(rounds > had ? rounds - had : 0);
  }
  return missing;
}

}  // namespace

bool is_possible(const ProductShape& shape, const Plan& plan) {
  return plan.rows >= 1 && plan.rows <= std::min(shape.rows, kMostRows) && plan.panels >= 1 &&
         plan.panels <= shape.panels && plan.chunk_steps >= 1 &&
         plan.chunk_steps <= shape.blocks * shape.taps;
}

std::vector<Plan> candidate_plans(const ProductShape& shape, const Machine& machine) {
  const Plan computed = plan_product(shape, machine);
  std::vector<Plan> plans;
  auto add = [&](int64_t rows, int64_t panels, int64_t chunk_steps) {
    rows = std::clamp<int64_t>(rows, 1, std::min(shape.rows, kMostRows));
    panels = std::clamp<int64_t>(panels, 1, shape.panels);
    Plan plan;  // ranges of equal length
    plan.rows = ceil_div(shape.rows, ceil_div(shape.rows, rows));
    plan.panels = ceil_div(shape.panels, ceil_div(shape.panels, panels));
    plan.chunk_steps = static_cast<int>(std::clamp<int64_t>(chunk_steps, 1, shape.blocks * shape.taps));
    if (std::find(plans.begin(), plans.end(), plan) == plans.end()) plans.push_back(plan);
  };
  const int64_t rows = computed.rows, panels = computed.panels, chunk = computed.chunk_steps;
  plans.push_back(computed);
  add(ceil_div(rows, 2), panels, chunk);
  add(2 * rows, panels, chunk);
  add(rows, ceil_div(panels, 2), chunk);
  add(rows, 2 * panels, chunk);
  add(rows, panels, ceil_div(chunk, 2 * shape.taps) * shape.taps);
  add(rows, panels, 2 * chunk);
  add(shape.rows, ceil_div(shape.panels, machine.threads), chunk);  // by columns alone
  add(std::min<int64_t>(ceil_div(shape.rows, machine.threads), 1024), shape.panels, chunk);  // by rows alone
  return plans;
}

KeptPlans::KeptPlans(const std::vector<Entry>& entries) {
  for (const auto& [shape, plan] : entries) {
    check(is_possible(shape, plan), code::kInvalidRequest, "plans: ", plan.rows, " rows, ", plan.panels,
          " panels and ", plan.chunk_steps, " steps are not possible for ", shape.rows, " rows, ",
          shape.panels, " panels and ", shape.blocks * shape.taps, " steps");
    plans_[shape] = plan;
  }
}

Plan KeptPlans::plan(const ProductShape& shape, const Machine& machine) {
  const auto found = plans_.find(shape);
  return found != plans_.end() ? found->second : plan_product(shape, machine);
}

Plan PlanTrials::plan(const ProductShape& shape, const Machine& machine) {
  std::lock_guard lock(mutex_);
  std::vector<Candidate>& candidates = trials_[shape];
  if (candidates.empty())
    for (const Plan& plan : candidate_plans(shape, machine)) candidates.push_back({plan, {}});
  // Whoever lacks most is next; when nobody lacks anything, the best.
  const std::vector<size_t> missing = missing_of(candidates);
  const auto most = std::max_element(missing.begin(), missing.end());
  if (*most > 0) return candidates[static_cast<size_t>(most - missing.begin())].plan;
  return std::min_element(candidates.begin(), candidates.end(),
                          [](const auto& a, const auto& b) { return best_of(a) < best_of(b); })
      ->plan;
}

void PlanTrials::took(const ProductShape& shape, const Plan& plan, double seconds) {
  std::lock_guard lock(mutex_);
  for (Candidate& candidate : trials_[shape])
    if (candidate.plan == plan) candidate.seconds.push_back(seconds);
}

PlanTrials::Trials PlanTrials::trials() const {
  std::lock_guard lock(mutex_);
  return trials_;
}

int PlanTrials::done() const {
  std::lock_guard lock(mutex_);
  size_t count = 0;
  for (const auto& [shape, candidates] : trials_)
    for (const Candidate& candidate : candidates) count += candidate.seconds.size();
  return static_cast<int>(count);
}

int PlanTrials::missing() const {
  std::lock_guard lock(mutex_);
  size_t count = 0;
  for (const auto& [shape, candidates] : trials_)
    for (size_t some : missing_of(candidates)) count += some;
  return static_cast<int>(count);
}

}  // namespace textopia::cpu
