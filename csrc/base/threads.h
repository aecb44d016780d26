// How many CPUs this process may really use.
#pragma once

#include <string>

namespace textopia {

// CPUs of the affinity mask, but not more than the cgroup's CPU quota allows (whole CPUs, at least 1).
// Containers often see all CPUs of the machine and may use few: more threads than that are throttled.
int usable_cpus();

// The quota in whole CPUs (rounded down, at least 1), 0 without one. `proc_cgroup` is the text of
// /proc/self/cgroup, `mount` the directory of the cgroup file systems; versions 1 and 2 are understood.
int cgroup_cpu_limit(const std::string& proc_cgroup, const std::string& mount);

}  // namespace textopia
