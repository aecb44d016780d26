// AMX instructions one by one, for tests/cpu/test_amx_emulator.py: amx_program NAME. Products read a
// configuration and the tiles 0 (sums), 1 and 2 from standard input and write tile 0; other names do one
// thing, and misuses are expected to end the process.
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef struct {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} Config;

static uint8_t tiles[3][16][64];
static Config full = {
    .palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

static void configure(const Config* config) { asm volatile("ldtilecfg %0" ::"m"(*config) : "memory"); }

static void load_all(void) {
  const int64_t stride = 64;
  asm volatile(
      "tileloadd (%0,%3,1), %%tmm0\n\ttileloaddt1 (%1,%3,1), %%tmm1\n\ttileloadd (%2,%3,1), %%tmm2" ::"r"(
          tiles[0]),
      "r"(tiles[1]), "r"(tiles[2]), "r"(stride)
      : "memory");
}

static void store_sums(void) {
  memset(tiles[0], 0, sizeof(tiles[0]));
  asm volatile("tilestored %%tmm0, (%0,%1,1)" ::"r"(tiles[0]), "r"((int64_t)64) : "memory");
}

#define PRODUCT(name)                           \
  if (strcmp(what, #name) == 0) {               \
    asm volatile(#name " %tmm2, %tmm1, %tmm0"); \
    return 1;                                   \
  }

static int multiply(const char* what) {
  PRODUCT(tdpbf16ps)
  PRODUCT(tdpbssd)
  PRODUCT(tdpbsud)
  PRODUCT(tdpbusd)
  PRODUCT(tdpbuud)
  return 0;
}

// A tile loaded through `operand` must be the one that plain loads find: 1 KB at `memory + 256`, rows 128
// apart.
uint8_t memory[4096];
static int failures = 0;
#define ADDRESS(registers, operand)                                                                 \
  do {                                                                                              \
    asm volatile("tilezero %%tmm5\n\t" registers "\n\ttileloadd " operand                           \
                 ", %%tmm5\n\ttilestored %%tmm5, (%[out],%[stride],1)" ::[begin] "r"(memory + 256), \
                 [stride] "r"((int64_t)64), [out] "r"(tiles[0])                                     \
                 : "memory", "rax", "rbx", "r12", "r13", "r14", "r15");                             \
    for (int r = 0; r < 16; ++r)                                                                    \
      if (memcmp(tiles[0][r], memory + 256 + 128 * r, 64) != 0) {                                   \
        printf("wrong row %d of " operand "\n", r);                                                 \
        ++failures;                                                                                 \
        break;                                                                                      \
      }                                                                                             \
  } while (0)

static int addresses(void) {
  for (size_t i = 0; i < sizeof(memory); ++i) memory[i] = (uint8_t)(i * 31 + i / 256);
  configure(&full);
  ADDRESS("mov %[begin], %%rax; mov $128, %%rbx", "(%%rax,%%rbx,1)");
  ADDRESS("mov %[begin], %%rax; mov $16, %%rbx", "(%%rax,%%rbx,8)");
  ADDRESS("lea 100(%[begin]), %%rax; mov $64, %%rbx", "-100(%%rax,%%rbx,2)");
  ADDRESS("lea -100000(%[begin]), %%rax; mov $32, %%rbx", "100000(%%rax,%%rbx,4)");
  ADDRESS("mov %[begin], %%r12; mov $128, %%r13", "(%%r12,%%r13,1)");
  ADDRESS("mov %[begin], %%r13; mov $128, %%r12", "(%%r13,%%r12,1)");
  ADDRESS("mov %[begin], %%rax; mov $128, %%r15", "(%%rax,%%r15,1)");
  ADDRESS("lea 8(%[begin]), %%r14; mov $64, %%rbx", "-8(%%r14,%%rbx,2)");
  ADDRESS("lea 2176(%[begin]), %%rax; mov $-128, %%rbx; neg %%rbx", "-2176(%%rax,%%rbx,1)");
  ADDRESS("mov $128, %%rbx", "memory+256(,%%rbx,1)");  // the program is linked to fixed addresses
  // Without an index every row is the same.
  asm volatile("tileloadd (%0), %%tmm5\n\ttilestored %%tmm5, (%1,%2,1)" ::"r"(memory + 256), "r"(tiles[0]),
               "r"((int64_t)64)
               : "memory");
  for (int r = 0; r < 16; ++r) failures += memcmp(tiles[0][r], memory + 256, 64) != 0;
  // On the stack, and relative to the program counter.
  uint8_t local[64];
  asm volatile("sttilecfg %0" : "=m"(local));
  failures += memcmp(local, &full, 64) != 0;
  asm volatile("sttilecfg memory+64(%%rip)" ::: "memory");
  failures += memcmp(memory + 64, &full, 64) != 0;
  asm volatile("tilerelease");
  asm volatile("sttilecfg %0" : "=m"(local));
  failures += memcmp(local, (uint8_t[64]){0}, 64) != 0;
  return failures;
}

static int misuse(const char* what) {
  Config config = full;
  if (strcmp(what, "unconfigured") == 0) {
    asm volatile("tilezero %tmm0");
  } else if (strcmp(what, "released") == 0) {
    configure(&full);
    asm volatile("tilerelease\n\ttilezero %tmm0");
  } else if (strcmp(what, "rows") == 0) {
    config.rows[3] = 17;
    configure(&config);
  } else if (strcmp(what, "row bytes") == 0) {
    config.row_bytes[3] = 68;
    configure(&config);
  } else if (strcmp(what, "palette") == 0) {
    config.palette = 2;
    configure(&config);
  } else if (strcmp(what, "reserved") == 0) {
    config.reserved[13] = 1;
    configure(&config);
  } else if (strcmp(what, "half a tile") == 0) {
    config.rows[7] = 0;
    configure(&config);
  } else if (strcmp(what, "ninth tile") == 0) {
    config.rows[8] = config.row_bytes[8] = 16;
    configure(&config);
  } else if (strcmp(what, "same tile") == 0) {
    configure(&full);
    asm volatile(".byte 0xc4, 0xe2, 0x72, 0x5c, 0xc1");  // tdpbf16ps tmm0, tmm1, tmm1: assemblers refuse it
  } else if (strcmp(what, "columns") == 0) {
    config.row_bytes[0] = 32;
    configure(&config);
    multiply("tdpbf16ps");
  } else if (strcmp(what, "inner size") == 0) {
    config.rows[2] = 8;
    configure(&config);
    multiply("tdpbssd");
  } else if (strcmp(what, "illegal") == 0) {
    asm volatile("ud2");
  }
  return 0;
}

int main(int count, char** arguments) {
  const char* what = count > 1 ? arguments[1] : "";
  if (strcmp(what, "not asked") != 0 && syscall(SYS_arch_prctl, 0x1023, 18) != 0) return 2;
  if (strcmp(what, "not asked") == 0) configure(&full);
  if (strcmp(what, "addresses") == 0) return addresses();
  if (strncmp(what, "tdp", 3) != 0) return misuse(what);
  Config config;
  if (fread(&config, sizeof(config), 1, stdin) != 1 || fread(tiles, sizeof(tiles), 1, stdin) != 1) return 2;
  configure(&config);
  load_all();
  if (!multiply(what)) return 2;
  store_sums();
  return fwrite(tiles[0], sizeof(tiles[0]), 1, stdout) == 1 ? 0 : 2;
}
