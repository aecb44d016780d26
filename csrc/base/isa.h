// What this CPU can do, and which kernels to run. Dispatch is a value: kernels are listed in tables of
// {name, required ISA, function}, best first, and every entry can be called by name in one process.
#pragma once

#include <string>
#include <vector>

namespace textopia {

enum class Isa : int { kScalar = 0, kAvx2 = 1, kAvx512 = 2 };

// "scalar", "avx2", "avx512".
const char* name_of(Isa isa);

// The ISA of that name; throws Error{configuration} listing the allowed names when it is unknown or not
// supported.
Isa isa_named(const std::string& name);

// True when the CPU and the operating system (XCR0) support it. kAvx2 means AVX2+FMA+F16C; kAvx512 means
// AVX-512 F, BW, DQ and VL.
bool is_supported(Isa isa);

// Supported ones, best first; the last is always kScalar.
std::vector<Isa> supported_isas();

// The best supported ISA, or the one named by TEXTOPIA_FORCE_ISA (read once, at the first call). Throws
// Error{configuration} when that name is unknown or not supported here.
Isa active_isa();

// CPU features for `doctor`, lower case as in /proc/cpuinfo: "avx2", "avx512f", "avx512_bf16", "amx_bf16" ...
std::vector<std::string> cpu_features();

}  // namespace textopia
