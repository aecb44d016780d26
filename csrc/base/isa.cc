#include "base/isa.h"

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "base/error.h"

#ifdef TEXTOPIA_X86
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

// Tests may preload an emulator of AMX (tests/support/amx_emulator.c) that defines this and speaks for the
// CPU; elsewhere nobody does, and it is null: no setting makes a program run tiles that are not there.
extern "C" [[gnu::weak, gnu::visibility("default")]] uint32_t textopia_emulated_amx();

namespace textopia {
namespace {

// Register files that XCR0 must list: none, ymm, zmm with masks, tiles.
constexpr uint64_t kNoState = 0;
constexpr uint64_t kYmmState = 0x6;
constexpr uint64_t kZmmState = 0xe6;
constexpr uint64_t kTileState = 0x60000;

// What CPUID names and what the operating system saves on a context switch are two questions; a feature
// counts only when both say yes.
struct CpuWords {
  uint32_t leaf1_ecx = 0, leaf7_ebx = 0, leaf7_ecx = 0, leaf7_edx = 0, leaf7_1_eax = 0;
  uint64_t xcr0 = 0;
};

CpuWords read_cpu() {
  CpuWords words;
#ifdef TEXTOPIA_X86
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return words;
  words.leaf1_ecx = ecx;
  constexpr uint32_t kOsxsave = 1u << 27;
  if (ecx & kOsxsave) {
    uint32_t low = 0, high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    words.xcr0 = (uint64_t{high} << 32) | low;
  }
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return words;
  words.leaf7_ebx = ebx;
  words.leaf7_ecx = ecx;
  words.leaf7_edx = edx;
  if (eax >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx)) words.leaf7_1_eax = eax;
  if (textopia_emulated_amx != nullptr) {
    words.leaf7_edx |= textopia_emulated_amx();
    words.xcr0 |= kTileState;
  }
#endif
  return words;
}

const CpuWords& cpu() {
  static const CpuWords words = read_cpu();
  return words;
}

struct Feature {
  const char* name;
  uint32_t CpuWords::* word;
  int bit;
  uint64_t state;
};

constexpr Feature kFeatures[] = {
    {"ssse3", &CpuWords::leaf1_ecx, 9, kNoState},
    {"sse4_1", &CpuWords::leaf1_ecx, 19, kNoState},
    {"sse4_2", &CpuWords::leaf1_ecx, 20, kNoState},
    {"avx", &CpuWords::leaf1_ecx, 28, kYmmState},
    {"f16c", &CpuWords::leaf1_ecx, 29, kYmmState},
    {"fma", &CpuWords::leaf1_ecx, 12, kYmmState},
    {"avx2", &CpuWords::leaf7_ebx, 5, kYmmState},
    {"bmi2", &CpuWords::leaf7_ebx, 8, kNoState},
    {"avx_vnni", &CpuWords::leaf7_1_eax, 4, kYmmState},
    {"avx512f", &CpuWords::leaf7_ebx, 16, kZmmState},
    {"avx512dq", &CpuWords::leaf7_ebx, 17, kZmmState},
    {"avx512bw", &CpuWords::leaf7_ebx, 30, kZmmState},
    {"avx512vl", &CpuWords::leaf7_ebx, 31, kZmmState},
    {"avx512vbmi", &CpuWords::leaf7_ecx, 1, kZmmState},
    {"avx512_vnni", &CpuWords::leaf7_ecx, 11, kZmmState},
    {"avx512_bf16", &CpuWords::leaf7_1_eax, 5, kZmmState},
    {"avx512_fp16", &CpuWords::leaf7_edx, 23, kZmmState},
    {"amx_tile", &CpuWords::leaf7_edx, 24, kTileState},
    {"amx_int8", &CpuWords::leaf7_edx, 25, kTileState},
    {"amx_bf16", &CpuWords::leaf7_edx, 22, kTileState},
    {"amx_fp16", &CpuWords::leaf7_1_eax, 21, kTileState},
};

bool has(const Feature& feature) {
  return (cpu().*feature.word >> feature.bit & 1u) && (cpu().xcr0 & feature.state) == feature.state;
}

bool has_all(std::initializer_list<const char*> names) {
  for (std::string name : names) {
    bool is_there = false;
    for (const Feature& feature : kFeatures) is_there = is_there || (name == feature.name && has(feature));
    if (!is_there) return false;
  }
  return true;
}

// Linux grants the 8 KB of tile registers per process, and only to those who ask. Returns 0 or an errno.
int ask_for_tiles() {
#if defined(TEXTOPIA_X86) && defined(SYS_arch_prctl)
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0 ? 0 : errno;
#else
  return ENOSYS;
#endif
}

bool has_tiles() {
  static const bool is_there =
      has_all({"amx_tile", "amx_bf16", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16"});
  return is_there;
}

int tile_permission() {
  static const int answer = has_tiles() ? ask_for_tiles() : ENOSYS;
  return answer;
}

bool is_supported(MatrixUnit unit) {
  static const bool is_bf16 = has_all({"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16", "fma"});
  if (unit == MatrixUnit::kAmxBf16) return has_tiles() && tile_permission() == 0;
  return unit == MatrixUnit::kScalar || is_bf16;
}

MatrixUnit choose_matrix_unit() {
  const Isa isa = active_isa();
  const char* forced = std::getenv("TEXTOPIA_FORCE_ISA");
  const bool is_forced = forced != nullptr && *forced != '\0';
  for (MatrixUnit unit : supported_matrix_units()) {
    if (unit == MatrixUnit::kAmxBf16 && is_forced) continue;
    if (unit == MatrixUnit::kScalar || isa == Isa::kAvx512) return unit;
  }
  return MatrixUnit::kScalar;
}

std::atomic<MatrixUnit>& matrix_unit() {
  static std::atomic<MatrixUnit> unit{choose_matrix_unit()};
  return unit;
}

Isa choose_isa() {
  const char* forced = std::getenv("TEXTOPIA_FORCE_ISA");
  if (forced == nullptr || *forced == '\0') return supported_isas().front();
  try {
    return isa_named(forced);
  } catch (const Error& error) {
    throw Error(code::kConfiguration, text("TEXTOPIA_FORCE_ISA: ", error.what()),
                {{"param", "TEXTOPIA_FORCE_ISA"}});
  }
}

}  // namespace

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::kAvx512: return "avx512";
    case Isa::kAvx2: return "avx2";
    case Isa::kScalar: return "scalar";
  }
  return "unknown";
}

Isa isa_named(const std::string& name) {
  std::string allowed;
  for (Isa isa : supported_isas()) {
    if (name == name_of(isa)) return isa;
    allowed += (allowed.empty() ? "" : ", ") + std::string(name_of(isa));
  }
  throw Error(code::kConfiguration, text("instruction set '", name, "', this machine allows ", allowed),
              {{"param", "isa"}});
}

bool is_supported(Isa isa) {
  static const bool is_avx2 = has_all({"avx", "avx2", "fma", "f16c"});
  static const bool is_avx512 = is_avx2 && has_all({"avx512f", "avx512bw", "avx512dq", "avx512vl"});
  return isa == Isa::kScalar || (isa == Isa::kAvx2 && is_avx2) || (isa == Isa::kAvx512 && is_avx512);
}

std::vector<Isa> supported_isas() {
  std::vector<Isa> isas;
  for (Isa isa : {Isa::kAvx512, Isa::kAvx2, Isa::kScalar})
    if (is_supported(isa)) isas.push_back(isa);
  return isas;
}

Isa active_isa() {
  static const Isa isa = choose_isa();
  return isa;
}

const char* name_of(MatrixUnit unit) {
  switch (unit) {
    case MatrixUnit::kAmxBf16: return "amx_bf16";
    case MatrixUnit::kAvx512Bf16: return "avx512_bf16";
    case MatrixUnit::kScalar: return "scalar";
  }
  return "unknown";
}

bool has_int8(MatrixUnit unit) {
  static const bool is_in_tiles = has_all({"amx_int8"}), is_in_registers = has_all({"avx512_vnni"});
  if (!is_supported(unit)) return false;
  return (unit == MatrixUnit::kAmxBf16 && is_in_tiles) ||
         (unit == MatrixUnit::kAvx512Bf16 && is_in_registers);
}

std::vector<MatrixUnit> supported_matrix_units() {
  std::vector<MatrixUnit> units;
  for (MatrixUnit unit : {MatrixUnit::kAmxBf16, MatrixUnit::kAvx512Bf16, MatrixUnit::kScalar})
    if (is_supported(unit)) units.push_back(unit);
  return units;
}

MatrixUnit active_matrix_unit() { return matrix_unit().load(); }

void set_matrix_unit(const std::string& name) {
  std::string allowed;
  for (MatrixUnit unit : supported_matrix_units()) {
    if (name == name_of(unit)) return matrix_unit().store(unit);
    allowed += (allowed.empty() ? "" : ", ") + std::string(name_of(unit));
  }
  throw Error(code::kConfiguration, text("matrix unit '", name, "', this machine allows ", allowed),
              {{"param", "unit"}});
}

std::string amx_refusal() {
  if (!has_tiles() || tile_permission() == 0) return "";
  return text("the kernel refuses the tile registers (", std::strerror(tile_permission()), ")");
}

std::vector<std::string> cpu_features() {
  std::vector<std::string> names;
  for (const Feature& feature : kFeatures)
    if (has(feature)) names.emplace_back(feature.name);
  return names;
}

}  // namespace textopia
