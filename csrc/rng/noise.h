// Streams of standard normal numbers. A stream serves one request of B images; draw k of the stream is the
// same whatever the thread, the device or the batch the images are in.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace textopia::rng {

// A stream has a position, so it belongs to one user at a time: hold a NoiseLease around a series of draws.
class NoiseStream {
 public:
  NoiseStream() = default;
  NoiseStream(const NoiseStream&) = delete;
  NoiseStream& operator=(const NoiseStream&) = delete;
  virtual ~NoiseStream() = default;

  // Writes the next draw: float32 [image_count, count_per_image]. Never allocates after the first draw of a
  // size. Throws Error{invalid_request} when image_count is not the number of images the stream was made for.
  virtual void draw(float* out, size_t image_count, size_t count_per_image) = 0;

  // One generator draws the whole batch at once; otherwise each image has numbers of its own.
  virtual bool is_shared() const { return false; }

  // A stream whose values follow from these numbers alone (philox_stream), so that a device can draw them
  // itself and then moves next_draw on. Null for every other stream.
  struct Counter {
    std::vector<uint64_t> seeds;
    uint64_t next_draw = 0;
  };
  virtual Counter* counter() { return nullptr; }

 private:
  friend class NoiseLease;
  std::atomic<bool> is_leased_{false};
};

// The exclusive use of a stream during a scope. Throws Error{invalid_request} when somebody else has it: two
// requests drawing from one stream would otherwise share its numbers in an order that nobody chose.
class NoiseLease {
 public:
  explicit NoiseLease(NoiseStream& stream);
  ~NoiseLease();
  NoiseLease(const NoiseLease&) = delete;
  NoiseLease& operator=(const NoiseLease&) = delete;

 private:
  NoiseStream& stream_;
};

// torch.randn(..., dtype=float32) of a CPU torch.Generator after manual_seed(seed), bit for bit as torch
// computes it on x86 with AVX2; the same numbers on every CPU (torch itself differs in last bits where it has
// no AVX2). Fewer than 16 numbers at once use the C library's log1p, sin and cos, as torch does. Only the low
// 32 bits of a seed count, as in torch. One seed per image: image i draws [1, count] from its own generator,
// as diffusers does with a list of generators. Exactly one seed and `is_shared`: one generator draws
// [image_count, count] at once, as with a single generator.
std::unique_ptr<NoiseStream> torch_stream(std::vector<uint64_t> seeds, bool is_shared);

// torch.randn of a CUDA torch.Generator, computed here: Philox4x32-10 with key = seed, counter =
// (draw, 0, element, 0), u = (word0 + 1/2) / 2^32, v = (word1 + 1/2) * 2 pi / 2^32, sqrt(-2 ln u) sin v.
// Holds where one CUDA thread makes one element (up to 2048 elements per multiprocessor: 200,000 on a large
// GPU). Evaluated in float64 and rounded once, the same bits on every CPU; the GPU's own float32 arithmetic
// differs from it in last bits. Seeds and is_shared as for torch_stream.
std::unique_ptr<NoiseStream> cuda_stream(std::vector<uint64_t> seeds, bool is_shared);

// Counter-based: the value depends on (seed of the image, draw, element) alone, never on the place of the
// image in the batch or the size of the tensor. The same bits on every CPU. Philox4x32-10, key = seed (low,
// high), counter = (c low, c high, draw low, draw high). Counter c makes four of the 32 elements of group g =
// c / 8; with i = c % 8: words 0 and 1 make elements 32 g + i (cosine) and 32 g + 8 + i (sine), words 2 and 3
// make 32 g + 16 + i and 32 g + 24 + i. Box-Muller with u1 = float(word >> 1) * 2^-31 + 2^-32 and angle 2 pi
// (word' >> 8) * 2^-24, in float32 (normal_math.h).
std::unique_ptr<NoiseStream> philox_stream(std::vector<uint64_t> seeds);

// Noise that the caller made: float32 [draw_count, image_count * count_per_image], draw k returns block k. A
// draw beyond the last, or of another size than a block, throws Error{invalid_request}.
std::unique_ptr<NoiseStream> array_stream(std::vector<float> values, size_t draw_count);

// A stream that goes on from generators that the caller has.
class CallerStream : public NoiseStream {
 public:
  // The states of those generators after the draws so far, in the bytes of torch's get_state.
  virtual std::vector<std::string> states() const = 0;
};

// torch.randn of torch.Generators of the CPU, or of CUDA, that stand in `states` (what get_state gives: 5056
// bytes, or 16 of seed and offset). owners[i] is the generator of image i, which draws [1, count]; a draw may
// be for the first images alone, and images with one generator take turns. No owners: the one generator
// draws [image_count, count] at once. Throws Error{invalid_request} on bytes that are no such state.
std::unique_ptr<CallerStream> torch_state_stream(const std::vector<std::string>& states,
                                                 std::vector<size_t> owners);
std::unique_ptr<CallerStream> cuda_state_stream(const std::vector<std::string>& states,
                                                std::vector<size_t> owners);

// From one noise level to another; of no length where a draw belongs to no interval.
struct Interval {
  double from;
  double to;
};

// Increments of one Brownian path W over sigma per image: the draw for an interval is
// (W(to) - W(from)) / sqrt(|to - from|).
class BrownianStream : public NoiseStream {
 public:
  // What the next draws stand for, in order. Throws Error{invalid_request} unless 0 <= sigma < 2^40.
  virtual void follow(std::vector<Interval> intervals) = 0;
};

// W(sigma) depends on (seed of the image, element, sigma) alone: steps may be many or few. Sigmas are rounded
// to 2^20 points per octave, those below 2^-24 to 0, and the lengths are those of the rounded intervals, so
// that every draw is unit normal and draws of disjoint intervals are independent. Draws beyond those
// followed, or over no length, come from `others`.
std::unique_ptr<BrownianStream> brownian_stream(std::vector<uint64_t> seeds,
                                                std::unique_ptr<NoiseStream> others);

}  // namespace textopia::rng
