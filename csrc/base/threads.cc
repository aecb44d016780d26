#include "base/threads.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <vector>

namespace textopia {
namespace {

int affinity_cpus() {
  // Grows until the kernel's mask fits; machines with more than 1024 CPUs exist.
  for (int capacity = 1024; capacity <= (1 << 20); capacity *= 2) {
    cpu_set_t* mask = CPU_ALLOC(capacity);
    if (mask == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(capacity);
    const int failure = sched_getaffinity(0, bytes, mask) == 0 ? 0 : errno;
    const int count = failure == 0 ? CPU_COUNT_S(bytes, mask) : 0;
    CPU_FREE(mask);
    if (failure == 0) return std::max(count, 1);
    if (failure != EINVAL) break;
  }
  return 1;
}

int whole_cpus(int64_t quota, int64_t period) {
  constexpr int64_t kMost = 1 << 20;  // what the files hold has to fit an int
  return quota > 0 && period > 0 ? static_cast<int>(std::clamp<int64_t>(quota / period, 1, kMost)) : 0;
}

int64_t read_number(const std::string& path) {
  int64_t number = 0;
  std::ifstream(path) >> number;
  return number;
}

// One directory's own limit: cpu.max ("max 100000" means none) or the two files of version 1 (-1 means none).
int limit_in(const std::string& directory) {
  std::ifstream file(directory + "/cpu.max");
  int64_t quota = 0, period = 0;
  if (file && (file >> quota >> period)) return whole_cpus(quota, period);
  return whole_cpus(read_number(directory + "/cpu.cfs_quota_us"),
                    read_number(directory + "/cpu.cfs_period_us"));
}

// Every ancestor may limit too. A container may not see the path that it is told; its root is then its own
// group.
int tightest(const std::string& mount, std::string path) {
  int limit = 0;
  while (true) {
    const int here = limit_in(mount + path);
    if (here > 0) limit = limit == 0 ? here : std::min(limit, here);
    const size_t slash = path.rfind('/');
    if (path.empty() || slash == std::string::npos) return limit;
    path.resize(slash);
  }
}

bool has_controller(const std::string& list, const std::string& name) {
  std::stringstream items(list);
  for (std::string item; std::getline(items, item, ',');)
    if (item == name) return true;
  return false;
}

}  // namespace

int cgroup_cpu_limit(const std::string& proc_cgroup, const std::string& mount) {
  int limit = 0;
  std::stringstream lines(proc_cgroup);
  for (std::string line; std::getline(lines, line);) {
    // "0::/path" is version 2, "4:cpu,cpuacct:/path" version 1.
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    if (path == "/") path.clear();
    std::vector<std::string> mounts;
    if (controllers.empty()) mounts = {mount, mount + "/unified"};
    if (has_controller(controllers, "cpu")) mounts = {mount + "/" + controllers, mount + "/cpu"};
    for (const std::string& place : mounts) {
      const int here = tightest(place, path);
      if (here > 0) limit = limit == 0 ? here : std::min(limit, here);
    }
  }
  return limit;
}

int usable_cpus() {
  std::ifstream file("/proc/self/cgroup");
  std::stringstream content;
  content << file.rdbuf();
  const int limit = cgroup_cpu_limit(content.str(), "/sys/fs/cgroup");
  const int count = affinity_cpus();
  return limit > 0 ? std::min(count, limit) : count;
}

}  // namespace textopia
