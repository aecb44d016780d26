// Preloaded into a test process: counts the allocations of each thread. glibc only.
#include <errno.h>
#include <stddef.h>

extern void* __libc_malloc(size_t);
extern void* __libc_calloc(size_t, size_t);
extern void* __libc_realloc(void*, size_t);
extern void* __libc_memalign(size_t, size_t);

static __thread unsigned long count __attribute__((tls_model("initial-exec")));

// Allocations of the calling thread so far.
unsigned long textopia_test_malloc_count(void) { return count; }

void* malloc(size_t bytes) {
  ++count;
  return __libc_malloc(bytes);
}

void* calloc(size_t items, size_t bytes) {
  ++count;
  return __libc_calloc(items, bytes);
}

void* realloc(void* old, size_t bytes) {
  ++count;
  return __libc_realloc(old, bytes);
}

void* memalign(size_t alignment, size_t bytes) {
  ++count;
  return __libc_memalign(alignment, bytes);
}

void* aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }

int posix_memalign(void** out, size_t alignment, size_t bytes) {
  void* made = memalign(alignment, bytes);
  if (!made) return ENOMEM;
  *out = made;
  return 0;
}
