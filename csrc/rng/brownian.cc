// A Brownian path over sigma that can be asked anywhere: each octave [2^k, 2^(k+1)) is a tree of midpoints
// (Levy's construction), and every node has its own Philox draw.
#include <algorithm>
#include <cmath>
#include <compare>
#include <cstdlib>

#include "base/error.h"
#include "rng/noise.h"
#include "rng/normal.h"
#include "rng/stream.h"

namespace textopia::rng {
namespace {

constexpr int kDepth = 20;                      // levels of an octave's tree
constexpr int kLowest = -25;                    // stands for [0, 2^-24), which has no points inside
constexpr double kHighest = 0x1p40;             // sigmas stay below
constexpr uint64_t kNodes = uint64_t{1} << 63;  // draws that no PhiloxStream counts up to

// 2^octave * (1 + offset / 2^kDepth), or 0 in the lowest octave.
struct Point {
  int octave = kLowest;
  uint32_t offset = 0;

  auto operator<=>(const Point&) const = default;
};

Point nearest(double sigma) {
  if (sigma < 0x1p-24) return {};
  int exponent;
  const double mantissa = 2.0 * std::frexp(sigma, &exponent);  // in [1, 2)
  const auto offset = static_cast<uint32_t>(std::lround((mantissa - 1.0) * (1 << kDepth)));
  if (offset >> kDepth) return {exponent, 0};
  return {exponent - 1, offset};
}

double sigma_of(Point point) {
  if (point.octave == kLowest) return 0.0;
  return std::ldexp(1.0 + static_cast<double>(point.offset) / (1 << kDepth), point.octave);
}

double length_of(int octave) { return std::ldexp(1.0, std::max(octave, kLowest + 1)); }

class Path final : public BrownianStream {
 public:
  Path(std::vector<uint64_t> seeds, std::unique_ptr<NoiseStream> others)
      : seeds_(std::move(seeds)), others_(std::move(others)), kernels_(normal_kernels()) {
    check_seeds("brownian", seeds_, false);
  }

  void follow(std::vector<Interval> intervals) override {
    for (const auto& [from, to] : intervals)
      for (double sigma : {from, to})
        check(sigma >= 0.0 && sigma < kHighest, code::kInvalidRequest, "noise 'brownian': sigma ", sigma,
              ", from 0 to ", kHighest, " is allowed");
    intervals_ = std::move(intervals);
    next_ = 0;
  }

  void draw(float* out, size_t image_count, size_t count_per_image) override {
    check_images(image_count, seeds_, false);
    const Interval interval = next_ < intervals_.size() ? intervals_[next_] : Interval{0.0, 0.0};
    const Point from = nearest(interval.from), to = nearest(interval.to);
    if (from == to) {
      others_->draw(out, image_count, count_per_image);
    } else {
      go(from, to, image_count, count_per_image);
      const auto scale = static_cast<float>(1.0 / std::sqrt(std::abs(sigma_of(to) - sigma_of(from))));
      for (size_t i = 0; i < at_.size(); ++i) out[i] = scale * (at_[i] - before_[i]);
    }
    ++next_;
  }

 private:
  // at_ - before_ becomes W(to) - W(from). Each is W since the beginning of its octave; where the octaves
  // differ, those between are added to the higher one. at_ of one step is before_ of the next, as a rule.
  void go(Point from, Point to, size_t image_count, size_t count) {
    const bool is_known = is_reusable_ && from == last_ && at_.size() == image_count * count;
    before_.swap(at_);
    for (auto* values : {&before_, &at_}) values->resize(image_count * count);
    for (auto* values : {&end_, &normals_}) values->resize(count);
    for (size_t image = 0; image < image_count; ++image) {
      const uint64_t seed = seeds_[image];
      float* before = before_.data() + image * count;
      float* at = at_.data() + image * count;
      if (!is_known) since_octave(seed, from, before, count);
      since_octave(seed, to, at, count);
      float* higher = to > from ? at : before;
      for (int k = std::min(from.octave, to.octave); k < std::max(from.octave, to.octave); ++k)
        add_octave(seed, k, higher, count);
    }
    last_ = to;
    is_reusable_ = to < from || to.octave == from.octave;  // nothing was added to at_
  }

  // out = W(point) - W(2^octave).
  void since_octave(uint64_t seed, Point point, float* out, size_t count) {
    std::fill_n(out, count, 0.0f);
    if (point.offset == 0) return;
    const double length = length_of(point.octave);
    std::fill_n(end_.data(), count, 0.0f);
    add_octave(seed, point.octave, end_.data(), count);
    // The point lies between `low`, where W is `out`, and low + width, where it is `end_`.
    uint32_t low = 0, width = uint32_t{1} << kDepth, node = 1;
    while (point.offset != low) {
      width /= 2;
      const bool is_right = point.offset >= low + width;
      const auto sd = static_cast<float>(std::sqrt(length * width / (2 << kDepth)));
      float* moved = is_right ? out : end_.data();
      const float* kept = is_right ? end_.data() : out;
      draw_node(seed, point.octave, node, count);
      for (size_t i = 0; i < count; ++i) moved[i] = 0.5f * (moved[i] + kept[i]) + sd * normals_[i];
      low += is_right ? width : 0;
      node = 2 * node + is_right;
    }
  }

  void add_octave(uint64_t seed, int octave, float* out, size_t count) {
    const auto sd = static_cast<float>(std::sqrt(length_of(octave)));
    draw_node(seed, octave, 0, count);
    for (size_t i = 0; i < count; ++i) out[i] += sd * normals_[i];
  }

  // normals_ of a node; node 0 is the whole octave, 1 its middle, 2n and 2n + 1 follow n.
  void draw_node(uint64_t seed, int octave, uint32_t node, size_t count) {
    const uint64_t draw = kNodes | (static_cast<uint64_t>(octave - kLowest) << 32) | node;
    philox_fill(kernels_, seed, draw, normals_.data(), count);
  }

  std::vector<uint64_t> seeds_;
  std::unique_ptr<NoiseStream> others_;
  const NormalKernels& kernels_;
  std::vector<Interval> intervals_;
  size_t next_ = 0;
  Point last_;  // where at_ is
  bool is_reusable_ = false;
  std::vector<float> before_, at_, end_, normals_;
};

}  // namespace

std::unique_ptr<BrownianStream> brownian_stream(std::vector<uint64_t> seeds,
                                                std::unique_ptr<NoiseStream> others) {
  return std::make_unique<Path>(std::move(seeds), std::move(others));
}

}  // namespace textopia::rng
