// How fast threads read memory that is in no cache: each sums up a piece of its own of an array much larger
// than the shared cache.
//   memory_stream 2     prints GB/s of two threads together
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

constexpr size_t kBytesPerThread = size_t{512} << 20;
constexpr int kRounds = 10;

uint64_t sum_of(const uint64_t* from, size_t count) {
  uint64_t sum = 0;
  for (size_t i = 0; i < count; ++i) sum += from[i];
  return sum;
}

}  // namespace

int main(int, char** arguments) {
  const auto threads = static_cast<size_t>(std::atoi(arguments[1]));
  const size_t count = kBytesPerThread / sizeof(uint64_t);
  std::vector<std::vector<uint64_t>> pieces(threads);
  std::vector<uint64_t> sums(threads);
  auto on_all = [&](auto body) {
    std::vector<std::thread> workers;
    for (size_t t = 0; t < threads; ++t) workers.emplace_back([&body, t] { body(t); });
    for (std::thread& worker : workers) worker.join();
  };
  on_all([&](size_t t) { pieces[t].assign(count, t + 1); });  // first touched by whoever reads it
  double best = 0.0;
  for (int round = 0; round < kRounds; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    on_all([&](size_t t) { sums[t] = sum_of(pieces[t].data(), count); });
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    const double rate = static_cast<double>(threads * kBytesPerThread) / elapsed.count() / 1e9;
    if (rate > best) best = rate;
  }
  for (size_t t = 0; t < threads; ++t)
    if (sums[t] != (t + 1) * count) return 1;
  std::printf("%.1f\n", best);
}
