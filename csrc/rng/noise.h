// Streams of standard normal numbers. A stream serves one request of B images; draw k of the stream is the
// same whatever the thread, the device or the batch the images are in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace textopia::rng {

class NoiseStream {
 public:
  virtual ~NoiseStream() = default;

  // Writes the next draw: float32 [image_count, count_per_image]. Never allocates after the first draw of a size.
  virtual void draw(float* out, size_t image_count, size_t count_per_image) = 0;
};

// torch.randn of a CPU torch.Generator, bit for bit (api: MT19937; see mt19937_torch.h).
// One seed per image: image i draws [1, count] from its own generator, as diffusers does with a list of generators.
// Exactly one seed and `is_shared`: one generator draws [image_count, count] at once, as with a single generator.
std::unique_ptr<NoiseStream> torch_stream(std::vector<uint64_t> seeds, bool is_shared);

// torch.randn of a CUDA torch.Generator (Philox4x32-10, offset advances by one per draw), computed here.
std::unique_ptr<NoiseStream> cuda_stream(std::vector<uint64_t> seeds, bool is_shared);

// Counter-based: the value depends on (seed of the image, draw, element) alone. The fastest.
std::unique_ptr<NoiseStream> philox_stream(std::vector<uint64_t> seeds);

}  // namespace textopia::rng
