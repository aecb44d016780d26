// AMX for tests, on a CPU with AVX-512 and without AMX: a library to preload (tests/support/emulated_amx.py),
// which carries out tile instructions when they are refused as illegal. Meaning and checks are those of the
// instruction set reference of Intel (volume 2, each instruction's "Operation" and exceptions); what the CPU
// would answer with an exception ends the process with a line that says why.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <immintrin.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { kTiles = 8, kMostRows = 16, kMostBytes = 64 };

typedef struct {  // the operand of LDTILECFG
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} Config;
_Static_assert(sizeof(Config) == 64, "as the CPU reads it");

// Each thread has its own tiles. A signal handler may not allocate, hence the model.
static _Thread_local __attribute__((tls_model("initial-exec"), aligned(64))) struct {
  uint8_t tiles[kTiles][kMostRows][kMostBytes];
  Config config;
} state;

static struct sigaction former;  // who gets the illegal instructions that are not of AMX
static int (*real_sigaction)(int, const struct sigaction*, struct sigaction*);
static long (*real_syscall)(long, ...);
static int is_permitted;
static uint64_t emulated;

static _Noreturn void refuse(const char* instruction, const char* why) {
  char line[200];
  const int length = snprintf(line, sizeof(line), "amx_emulator: %s: %s\n", instruction, why);
  if (write(2, line, (size_t)length) < 0) _exit(3);
  abort();
}

// A VEX-encoded instruction of map 0F38 with W = 0 and 128 bits, which all of AMX are.
typedef struct {
  int opcode, prefix;  // prefix: 0 none, 1 66, 2 F3, 3 F2
  int reg, rm, vvvv;   // of registers; rm is -1 where the operand is memory
  uint8_t* address;    // of memory
  int64_t stride;      // the index register, scaled
  int has_sib;
  int length;
} Instruction;

static int64_t register_value(const ucontext_t* context, int number) {
  static const int kPlaces[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return context->uc_mcontext.gregs[kPlaces[number]];
}

static int decode(const ucontext_t* context, Instruction* out) {
  const uint8_t* const begin = (const uint8_t*)context->uc_mcontext.gregs[REG_RIP];
  const uint8_t* code = begin;
  if (code[0] != 0xc4 || (code[1] & 0x1f) != 2 || (code[2] & 0x84) != 0) return 0;
  // R, X, B and vvvv are stored inverted; AMX has eight tiles and no use for R.
  const int r = !(code[1] & 0x80), x = !(code[1] & 0x40) * 8, b = !(code[1] & 0x20) * 8;
  const int modrm = code[4], mode = modrm >> 6;
  *out = (Instruction){.opcode = code[3],
                       .prefix = code[2] & 3,
                       .reg = modrm >> 3 & 7,
                       .rm = modrm & 7,
                       .vvvv = ~code[2] >> 3 & 15};
  code += 5;
  if (r != 0) return 0;
  if (mode == 3) {
    if (b != 0) return 0;
  } else {
    int64_t address = 0;
    int base = out->rm, is_relative = 0, has_base = 1;
    if (base == 4) {
      const int sib = *code++;
      const int index = (sib >> 3 & 7) + x;
      base = sib & 7;
      has_base = !(base == 5 && mode == 0);
      out->has_sib = 1;
      if (index != 4) out->stride = (int64_t)((uint64_t)register_value(context, index) << (sib >> 6));
    } else if (base == 5 && mode == 0) {
      is_relative = 1;
      has_base = 0;
    }
    if (has_base) address = register_value(context, base + b);
    if (mode == 1) {
      address += (int8_t)*code++;
    } else if (mode == 2 || !has_base) {
      int32_t displacement;
      memcpy(&displacement, code, sizeof(displacement));
      code += sizeof(displacement);
      address += displacement;
    }
    if (is_relative) address += (int64_t)code;
    out->address = (uint8_t*)address;
    out->rm = -1;
  }
  out->length = (int)(code - begin);
  return 1;
}

static void load_config(const uint8_t* from) {
  static const char kName[] = "ldtilecfg";
  if (!is_permitted) refuse(kName, "the operating system was not asked for tiles");
  Config config;
  memcpy(&config, from, sizeof(config));
  memset(&state, 0, sizeof(state));
  if (config.palette == 0) return;
  if (config.palette != 1) refuse(kName, "the palette is neither 0 nor 1");
  for (size_t i = 0; i < sizeof(config.reserved); ++i)
    if (config.reserved[i] != 0) refuse(kName, "a reserved byte is not 0");
  for (int t = 0; t < 16; ++t) {
    const int rows = config.rows[t], row_bytes = config.row_bytes[t];
    if (t >= kTiles && (rows != 0 || row_bytes != 0)) refuse(kName, "there are 8 tiles");
    if (rows > kMostRows || row_bytes > kMostBytes) refuse(kName, "a tile has at most 16 rows of 64 bytes");
    if ((rows == 0) != (row_bytes == 0))
      refuse(kName, "a tile has rows without bytes, or bytes without rows");
  }
  state.config = config;
}

static void check_tile(const char* name, int tile) {
  if (state.config.palette == 0) refuse(name, "no tiles are configured");
  if (tile >= kTiles || state.config.rows[tile] == 0) refuse(name, "the tile is not configured");
}

static void clear_tile(int tile) {
  check_tile("tilezero", tile);
  memset(state.tiles[tile], 0, sizeof(state.tiles[tile]));
}

static void move_tile(const Instruction* what, int is_store) {
  check_tile(is_store ? "tilestored" : "tileloadd", what->reg);
  const size_t bytes = state.config.row_bytes[what->reg];
  const int rows = state.config.rows[what->reg];
  uint8_t (*tile)[kMostBytes] = state.tiles[what->reg];
  if (!is_store)
    memset(tile[state.config.start_row], 0, (size_t)(kMostRows - state.config.start_row) * kMostBytes);
  for (int r = state.config.start_row; r < rows; ++r) {
    uint8_t* const row = what->address + r * what->stride;
    memcpy(is_store ? row : tile[r], is_store ? tile[r] : row, bytes);
  }
}

// rows of A, groups of four bytes in a row of A, columns of four bytes of the sums
typedef struct {
  int rows, groups;
  __mmask16 columns;
} Form;

static Form check_product(const char* name, int sum, int a, int b) {
  check_tile(name, sum);
  check_tile(name, a);
  check_tile(name, b);
  const Config* c = &state.config;
  if (sum == a || sum == b || a == b) refuse(name, "two operands are the same tile");
  if (c->row_bytes[sum] % 4 != 0 || c->row_bytes[a] % 4 != 0 || c->row_bytes[b] % 4 != 0)
    refuse(name, "the bytes of a row are no multiple of 4");
  if (c->rows[sum] != c->rows[a]) refuse(name, "sums and first operand differ in rows");
  if (c->row_bytes[sum] != c->row_bytes[b]) refuse(name, "sums and second operand differ in columns");
  if (c->row_bytes[a] / 4 != c->rows[b])
    refuse(name, "the second operand has not a row per group of the first");
  return (Form){c->rows[a], c->rows[b], (__mmask16)((1u << c->row_bytes[b] / 4) - 1)};
}

static int32_t group_of(int tile, int row, int group) {
  int32_t value;
  memcpy(&value, &state.tiles[tile][row][group * 4], sizeof(value));
  return value;
}

// Even and odd elements have a sum each, which begins at zero; both are added, and then to the tile.
static void dot_bf16(int sum, int a, int b) {
  const Form form = check_product("tdpbf16ps", sum, a, b);
  _mm_setcsr(0x9fc0);  // to nearest even, denormals in and out are zero, no exceptions
  const __m512i odd_bits = _mm512_set1_epi32((int)0xffff0000);
  for (int m = 0; m < form.rows; ++m) {
    __m512 even = _mm512_setzero_ps(), odd = even;
    for (int k = 0; k < form.groups; ++k) {
      const __m512i x = _mm512_set1_epi32(group_of(a, m, k)), y = _mm512_load_si512(state.tiles[b][k]);
      even = _mm512_fmadd_ps((__m512)_mm512_slli_epi32(x, 16), (__m512)_mm512_slli_epi32(y, 16), even);
      odd =
          _mm512_fmadd_ps((__m512)_mm512_and_si512(x, odd_bits), (__m512)_mm512_and_si512(y, odd_bits), odd);
    }
    const __m512 before = _mm512_load_ps(state.tiles[sum][m]);
    const __m512 after = _mm512_add_ps(before, _mm512_add_ps(even, odd));
    _mm512_store_ps(state.tiles[sum][m], _mm512_maskz_mov_ps(form.columns, after));
  }
}

// Four products of bytes per sum; sums wrap.
static void dot_int8(const char* name, int sum, int a, int b, int is_signed_a, int is_signed_b) {
  const Form form = check_product(name, sum, a, b);
  for (int m = 0; m < form.rows; ++m) {
    __m512i total = _mm512_load_si512(state.tiles[sum][m]);
    for (int k = 0; k < form.groups; ++k) {
      const uint8_t* x = &state.tiles[a][m][k * 4];
      const __m512i y = _mm512_load_si512(state.tiles[b][k]);
      for (int i = 0; i < 4; ++i) {
        const __m512i high = _mm512_sll_epi32(y, _mm_cvtsi32_si128(24 - 8 * i));
        const __m512i byte = is_signed_b ? _mm512_srai_epi32(high, 24) : _mm512_srli_epi32(high, 24);
        const __m512i factor = _mm512_set1_epi32(is_signed_a ? (int8_t)x[i] : x[i]);
        total = _mm512_add_epi32(total, _mm512_mullo_epi32(factor, byte));
      }
    }
    _mm512_store_si512(state.tiles[sum][m], _mm512_maskz_mov_epi32(form.columns, total));
  }
}

// The instruction at the program counter, if it is one of AMX; steps over it.
static int emulate(ucontext_t* context) {
  Instruction what;
  if (!decode(context, &what)) return 0;
  enum { kNone, k66, kF3, kF2 };
  const int is_memory = what.rm < 0;
  const int form = what.opcode << 2 | what.prefix;
  const int sum = what.reg, a = what.rm, b = what.vvvv;
  if (what.opcode == 0x49 || what.opcode == 0x4b) {
    if (what.vvvv != 0) return 0;
    if (what.opcode == 0x4b && !what.has_sib) return 0;
    if (form == (0x49 << 2 | kNone) && is_memory && what.reg == 0) {
      load_config(what.address);
    } else if (form == (0x49 << 2 | kNone) && !is_memory && what.reg == 0 && what.rm == 0) {
      memset(&state, 0, sizeof(state));  // tilerelease
    } else if (form == (0x49 << 2 | k66) && is_memory && what.reg == 0) {
      memcpy(what.address, &state.config, sizeof(state.config));
    } else if (form == (0x49 << 2 | kF2) && !is_memory && what.rm == 0) {
      clear_tile(what.reg);
    } else if (form == (0x4b << 2 | kF2) || form == (0x4b << 2 | k66)) {
      move_tile(&what, 0);  // tileloadd, tileloaddt1
    } else if (form == (0x4b << 2 | kF3)) {
      move_tile(&what, 1);
    } else {
      return 0;
    }
  } else if (is_memory) {
    return 0;
  } else if (form == (0x5c << 2 | kF3)) {
    dot_bf16(sum, a, b);
  } else if (form == (0x5e << 2 | kF2)) {
    dot_int8("tdpbssd", sum, a, b, 1, 1);
  } else if (form == (0x5e << 2 | kF3)) {
    dot_int8("tdpbsud", sum, a, b, 1, 0);
  } else if (form == (0x5e << 2 | k66)) {
    dot_int8("tdpbusd", sum, a, b, 0, 1);
  } else if (form == (0x5e << 2 | kNone)) {
    dot_int8("tdpbuud", sum, a, b, 0, 0);
  } else {
    return 0;
  }
  state.config.start_row = 0;
  context->uc_mcontext.gregs[REG_RIP] += what.length;
  __atomic_fetch_add(&emulated, 1, __ATOMIC_RELAXED);
  return 1;
}

// Tile instructions come in runs: one signal serves a run. The kernel restores all registers afterwards.
static void on_illegal_instruction(int signal, siginfo_t* info, void* context) {
  if (emulate(context)) {
    while (emulate(context)) continue;
  } else if (former.sa_flags & SA_SIGINFO) {
    former.sa_sigaction(signal, info, context);
  } else if (former.sa_handler == SIG_DFL || former.sa_handler == SIG_IGN) {
    real_sigaction(signal, &former, NULL);  // and the instruction meets it
  } else {
    former.sa_handler(signal);
  }
}

// Others (Python's faulthandler) may handle illegal instructions too, after the emulator.
int sigaction(int signal, const struct sigaction* restrict action, struct sigaction* restrict before) {
  if (real_sigaction == NULL) real_sigaction = dlsym(RTLD_NEXT, "sigaction");
  if (signal != SIGILL) return real_sigaction(signal, action, before);
  if (before != NULL) *before = former;
  if (action != NULL) former = *action;
  return 0;
}

// Stands for a kernel that lets every process use tiles which asks for them.
long syscall(long number, ...) {
  if (real_syscall == NULL) real_syscall = dlsym(RTLD_NEXT, "syscall");
  long a[6];
  va_list arguments;
  va_start(arguments, number);
  for (int i = 0; i < 6; ++i) a[i] = va_arg(arguments, long);
  va_end(arguments);
  if (number == SYS_arch_prctl && a[0] == 0x1023 && a[1] == 18) {  // ARCH_REQ_XCOMP_PERM, XTILEDATA
    is_permitted = 1;
    return 0;
  }
  return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

// What csrc/base/isa.cc asks for: AMX-BF16, AMX-TILE and AMX-INT8 as CPUID leaf 7 has them in EDX.
uint32_t textopia_emulated_amx(void) { return 1u << 22 | 1u << 24 | 1u << 25; }

uint64_t textopia_emulated_instructions(void) { return __atomic_load_n(&emulated, __ATOMIC_RELAXED); }

__attribute__((constructor)) static void install(void) {
  if (real_sigaction == NULL) real_sigaction = dlsym(RTLD_NEXT, "sigaction");
  struct sigaction action = {.sa_flags = SA_SIGINFO};
  action.sa_sigaction = on_illegal_instruction;
  real_sigaction(SIGILL, &action, &former);
}
