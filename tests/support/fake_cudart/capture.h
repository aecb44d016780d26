/* Part of runtime.c: capture of streams, and graphs. */
/* ---- capture: what is put on a capturing stream happens when its graph is launched ---- */
typedef struct {
  void *to;
  const void *from; /* null: a fill with `value` */
  size_t bytes;
  int value;
  void (*function)(void *); /* of the host, or a kernel that the driver computes */
  void *job;
} Work;
typedef struct { Work *work; size_t count, room; } Graph;
static struct { void *stream; Graph *graph; int is_invalid; } captures[MAX_STREAMS];

static int capture_of(void *stream) {
  for (int i = 0; i < MAX_STREAMS; ++i)
    if (captures[i].graph && captures[i].stream == stream) return i;
  return -1;
}
static int any_capture(void) {
  for (int i = 0; i < MAX_STREAMS; ++i)
    if (captures[i].graph) return i;
  return -1;
}
/* Calls that a capture in global mode does not survive. */
static int is_unsafe_now(void) {
  int capture = any_capture();
  if (capture >= 0) captures[capture].is_invalid = 1;
  return capture >= 0;
}
static void perform(const Work *work) {
  if (work->function) work->function(work->job);
  else if (work->to && work->from) memmove(work->to, work->from, work->bytes);
  else if (work->to) memset(work->to, work->value, work->bytes);
}
static void enqueue(void *stream, Work work) {
  int capture = capture_of(stream);
  if (capture < 0) { perform(&work); return; }
  Graph *graph = captures[capture].graph;
  if (graph->count == graph->room) graph->work = realloc(graph->work, (graph->room = 2 * graph->room + 64) * sizeof work);
  graph->work[graph->count++] = work;
}
/* A kernel of the provider or of a library: counted, and nothing more. */
void fake_enqueue(void *stream) { enqueue(stream, (Work){0}); }
static int take(void *stream, void (*function)(void *), void *job) {
  if (capture_of(stream) < 0) return 0;
  enqueue(stream, (Work){.function = function, .job = job});
  return 1;
}
int cudaStreamBeginCapture(void *stream, int mode) {
  CALL("%p %d", stream, mode)
  for (int i = 0; i < MAX_STREAMS; ++i)
    if (!captures[i].graph) {
      captures[i].stream = stream;
      captures[i].is_invalid = 0;
      captures[i].graph = calloc(1, sizeof(Graph));
      return OK;
    }
  return fail(INVALID_VALUE);
}
int cudaStreamEndCapture(void *stream, Graph **graph) {
  int capture = capture_of(stream);
  CALL("%p %zu", stream, capture < 0 ? (size_t)0 : captures[capture].graph->count)
  *graph = NULL;
  if (capture < 0) return fail(NOT_CAPTURING);
  *graph = captures[capture].graph;
  captures[capture].graph = NULL;
  return captures[capture].is_invalid ? (*graph = NULL, fail(CAPTURE_INVALIDATED)) : OK;
}
int cudaStreamIsCapturing(void *stream, int *status) {
  int capture = capture_of(stream);
  *status = capture < 0 ? 0 : captures[capture].is_invalid ? 2 : 1;
  return OK;
}
int cudaGraphInstantiate(Graph **executable, Graph *graph, uint64_t flags) {
  CALL("%zu %d", graph->count, (int)flags)
  Graph *copy = malloc(sizeof *copy);
  *copy = *graph;
  copy->work = malloc((graph->count + 1) * sizeof *graph->work);
  memcpy(copy->work, graph->work, graph->count * sizeof *graph->work);
  *executable = copy;
  return OK;
}
static int destroy(Graph *graph) { if (graph) { free(graph->work); free(graph); } return OK; }
int cudaGraphDestroy(Graph *graph) { CALL() return destroy(graph); }
int cudaGraphExecDestroy(Graph *graph) { CALL() return destroy(graph); }
int cudaGraphLaunch(Graph *graph, void *stream) {
  CALL("%p %zu", stream, graph->count)
  if (capture_of(stream) >= 0) return fail(CAPTURE_UNSUPPORTED);
  for (size_t i = 0; i < graph->count; ++i) perform(&graph->work[i]);
  return OK;
}
