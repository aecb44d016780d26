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

// What multiplies bfloat16 matrices: AMX tiles, AVX-512's dot products of pairs, or plain code, which runs
// everywhere and is the oracle of the others.
enum class MatrixUnit : int { kScalar = 0, kAvx512Bf16 = 1, kAmxBf16 = 2 };

// "scalar", "avx512_bf16", "amx_bf16".
const char* name_of(MatrixUnit unit);

// Whether the unit has dot products of bytes beside those of bfloat16 ("amx_int8", "avx512_vnni"); false for
// kScalar, whose plain code is slow.
bool has_int8(MatrixUnit unit);

// Supported ones, best first; the last is always kScalar. AMX counts when the CPU has it and the kernel lets
// this process use the tile registers (asked once, here).
std::vector<MatrixUnit> supported_matrix_units();

// The unit that new kernels take: the best one that active_isa() allows (kAvx512 forbids the tiles, a lower
// one everything but kScalar), until set_matrix_unit() says otherwise.
MatrixUnit active_matrix_unit();

// For tests and comparisons; kernels that exist keep theirs. Throws Error{configuration} listing the allowed
// names when it is unknown or not supported.
void set_matrix_unit(const std::string& name);

// "" where AMX is not there or is in use; otherwise why a CPU that has AMX cannot use it.
std::string amx_refusal();

}  // namespace textopia
