/* The parts of cuBLAS, cuBLASLt and cuDNN that answer with more than success. Handles and descriptors are opaque:
 * every function named ...Create... writes one (build.py). Nothing is computed. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

int fake_record(const char *name, const char *detail);
void fake_enqueue(void *stream);

static inline int record_stream(const char *name, void *stream) {
  char detail[32];
  snprintf(detail, sizeof detail, "%p", stream);
  return fake_record(name, detail);
}

#ifdef FAKE_CUBLAS
const char *cublasGetStatusName(int status) { return status ? "CUBLAS_STATUS_FAKE" : "CUBLAS_STATUS_SUCCESS"; }
const char *cublasGetStatusString(int status) { return status == 3 ? "the resource allocation failed" : status ? "made for a test" : "success"; }
int cublasGetMathMode(void *handle, int *mode) { (void)handle; *mode = 0; return 0; }
int cublasSetStream_v2(void *handle, void *stream) { (void)handle; return record_stream(__func__, stream); }
#endif

#ifdef FAKE_CUBLASLT
/* One algorithm that needs no workspace: cublasLtMatmulHeuristicResult_t is 64 bytes of algorithm, the bytes of
 * workspace, a status, the waves and reserved words, 96 in all. */
int cublasLtMatmulAlgoGetHeuristic(void *handle, void *operation, void *a, void *b, void *c, void *d, void *preference,
                                   int requested, char *results, int *returned) {
  (void)handle; (void)operation; (void)a; (void)b; (void)c; (void)d; (void)preference;
  int status = fake_record(__func__, "");
  *returned = requested > 0 && !status;
  if (*returned) memset(results, 0, 96);
  return status;
}
#endif

#ifdef FAKE_CUDNN
enum { BACKEND_DESCRIPTOR = 15 };
const char *cudnnGetErrorString(int status) { return status ? "made for a test" : "CUDNN_STATUS_SUCCESS"; }
void cudnnGetLastErrorString(char *text, size_t bytes) { snprintf(text, bytes, "made for a test"); }
size_t cudnnGetVersion(void) { return 91200; }
static _Thread_local void *current_stream;
int cudnnSetStream(void *handle, void *stream) { (void)handle; current_stream = stream; return record_stream(__func__, stream); }
int cudnnGetStream(void *handle, void **stream) { (void)handle; *stream = current_stream; return 0; }

/* A descriptor of the backend interface is its type. */
int cudnnBackendCreateDescriptor(int type, void **descriptor) { *descriptor = (void *)(uintptr_t)(0x1000 + type); return 0; }
/* Whatever is asked for, there is one of it, and it is zero. */
int cudnnBackendGetAttribute(void *descriptor, int attribute, int type, int64_t requested, int64_t *count, void *values) {
  (void)descriptor; (void)attribute;
  if (count) *count = 1;
  if (values && type != BACKEND_DESCRIPTOR && requested > 0) memset(values, 0, 8);
  return fake_record(__func__, "");
}
int cudnnBackendExecute(void *handle, void *plan, void *variants) {
  (void)handle; (void)plan; (void)variants;
  int status = record_stream(__func__, current_stream);
  if (!status) fake_enqueue(current_stream);
  return status;
}
#endif
