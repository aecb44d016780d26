#include "rng/noise.h"

#include <cstring>

#include "base/error.h"
#include "base/isa.h"
#include "rng/stream.h"

namespace textopia::rng {

NoiseLease::NoiseLease(NoiseStream& stream) : stream_(stream) {
  check(!stream.is_leased_.exchange(true, std::memory_order_acquire), code::kInvalidRequest,
        "noise: this stream is in use by another call; give each request its own stream");
}

NoiseLease::~NoiseLease() { stream_.is_leased_.store(false, std::memory_order_release); }

void check_seeds(const char* name, const std::vector<uint64_t>& seeds, bool is_shared) {
  check(!seeds.empty(), code::kInvalidRequest, "noise '", name,
        "': no seed was given, at least one is needed");
  check(!is_shared || seeds.size() == 1, code::kInvalidRequest, "noise '", name, "': ", seeds.size(),
        " seeds were given, a shared generator has exactly one");
}

void check_images(size_t image_count, const std::vector<uint64_t>& seeds, bool is_shared) {
  check(is_shared || image_count == seeds.size(), code::kInvalidRequest, "noise: a draw for ", image_count,
        " images was asked of a stream with ", seeds.size(), " seeds, one per image");
}

const NormalKernels& normal_kernels() {
#ifdef TEXTOPIA_X86
  switch (active_isa()) {
    case Isa::kAvx512: return normal_kernels_avx512();
    case Isa::kAvx2: return normal_kernels_avx2();
    case Isa::kScalar: break;
  }
#endif
  return normal_kernels_scalar();
}

namespace {

class ArrayStream final : public NoiseStream {
 public:
  ArrayStream(std::vector<float> values, size_t draw_count)
      : values_(std::move(values)), draw_count_(draw_count) {
    check(draw_count > 0 && values_.size() % draw_count == 0, code::kInvalidRequest,
          "noise array: ", values_.size(), " values do not make ", draw_count, " draws of one size");
    block_size_ = values_.size() / draw_count;
  }

  void draw(float* out, size_t image_count, size_t count_per_image) override {
    check(draw_ < draw_count_, code::kInvalidRequest, "noise array: ", draw_count_,
          " draws were given, this is a request for draw ", draw_ + 1);
    check(image_count * count_per_image == block_size_, code::kInvalidRequest, "noise array: its draws have ",
          block_size_, " values, ", image_count, " x ", count_per_image, " were asked for");
    if (block_size_ > 0) std::memcpy(out, values_.data() + draw_ * block_size_, block_size_ * sizeof(float));
    ++draw_;
  }

 private:
  std::vector<float> values_;
  size_t draw_count_;
  size_t block_size_ = 0;
  size_t draw_ = 0;
};

}  // namespace

std::unique_ptr<NoiseStream> array_stream(std::vector<float> values, size_t draw_count) {
  return std::make_unique<ArrayStream>(std::move(values), draw_count);
}

}  // namespace textopia::rng
