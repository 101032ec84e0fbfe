/* The plugin of plugins/c with one fault, put in by -DFAULT='…'. */
#define cilbench_plugin sound_plugin
#include "nearest_mean.c"
#undef cilbench_plugin
#include <math.h>

static CilStatus nan_logits(void *instance, const CilBatch *images, CilLogits *out) {
    CilStatus status = predict(instance, images, out);
    ((Model *)instance)->logits[0] = NAN;
    return status;
}

static CilStatus wide_logits(void *instance, const CilBatch *images, CilLogits *out) {
    CilStatus status = predict(instance, images, out);
    out->rows = 1, out->columns *= images->count;
    return status;
}

static CilStatus one_class_less(void *instance, const CilBatch *images, CilLogits *out) {
    CilStatus status = predict(instance, images, out);
    out->columns -= 1;
    return status;
}

static CilStatus null_logits(void *instance, const CilBatch *images, CilLogits *out) {
    CilStatus status = predict(instance, images, out);
    out->data = NULL;
    return status;
}

static CilStatus forgetful(void *instance, const CilState *state, const CilTask *tasks, uint64_t count, uint32_t running) {
    (void)instance, (void)state, (void)tasks, (void)count, (void)running;
    return OK;
}

static CilStatus refuses(void *instance, const CilState *state, const CilTask *tasks, uint64_t count, uint32_t running) {
    (void)instance, (void)state, (void)tasks, (void)count, (void)running;
    return (CilStatus){sizeof(CilStatus), CIL_FAILED, "this state is not mine"};
}

static CilStatus speechless(void *instance, const CilTask *task, const CilContext *context) {
    (void)instance, (void)task, (void)context;
    return (CilStatus){sizeof(CilStatus), 7, NULL};
}

static CilStatus asks_wrongly(void *instance, const CilTask *task, const CilContext *context) {
    (void)instance, (void)task;
    CilTensor out = {.size = sizeof out};
    return context->draw(context->host, NULL, NULL, 0, CIL_LAW_NORMAL, 0, 0, &out);
}

/* Asks for a batch with a struct whose size it never set. */
static CilStatus no_room(void *instance, const CilTask *task, const CilContext *context) {
    (void)instance, (void)task;
    uint32_t pass;
    CilBatch batch = {.size = 0};
    CilStatus status = context->open_pass(context->host, CIL_VIEW_TEST, 2, &pass);
    return status.code == CIL_OK ? context->next_batch(context->host, pass, &batch) : status;
}

/* A status as of version 1 of the ABI, which had no size. */
static CilStatus old_status(void *instance, const CilTask *task, const CilContext *context) {
    (void)instance, (void)task, (void)context;
    return (CilStatus){CIL_OK, 0, NULL};
}

/* A plan of a later revision, with a field that this cilbench does not have. */
typedef struct {
    CilPlan plan;
    uint64_t repeats;
} LaterPlan;

static CilStatus later_plan(void *instance, const CilTask *task, CilPlan *out, const char *required) {
    (void)instance, (void)task;
    LaterPlan later = {.plan = {.size = sizeof later, .batch_size = 64, .view = CIL_VIEW_TEST}};
    later.plan.required = required;
    later.repeats = ~0ull;
    cil_put(out, &later);
    return OK;
}

static CilStatus plans_more(void *instance, const CilTask *task, CilPlan *out) {
    return later_plan(instance, task, out, NULL);
}

static CilStatus plans_what_is_required(void *instance, const CilTask *task, CilPlan *out) {
    return later_plan(instance, task, out, "steps, repeats");
}

static int *volatile instance_of_nothing = NULL;

/* Crashes in the second task, as long as the file named by CRASH is there. */
static CilStatus crash(void *instance, const CilTask *task, const CilContext *context, int segment) {
    const char *mark = getenv("CRASH");
    FILE *file = mark ? fopen(mark, "r") : NULL;
    if (file && task->index == 1 && !segment) abort();
    /* A real fault: the Rust runtime looks at a raised one and goes on. */
    if (file && task->index == 1) *(volatile int *)instance_of_nothing = 1;
    if (file) fclose(file);
    return end_task(instance, task, context);
}

static CilStatus segfault(void *instance, const CilTask *task, const CilContext *context) { return crash(instance, task, context, 1); }
static CilStatus aborts(void *instance, const CilTask *task, const CilContext *context) { return crash(instance, task, context, 0); }

static CilStatus prints(void *instance, const CilTask *task, const CilContext *context) {
    printf("hello from the plugin\n");
    fflush(stdout);
    return end_task(instance, task, context);
}

/* A method of a later revision: longer than this cilbench knows it. */
static struct {
    CilMethod method;
    uint64_t later;
} longer;
static CilPlugin plugin;
#define method longer.method

const CilPlugin *cilbench_plugin(void);
const CilPlugin *cilbench_plugin(void) {
    (void)nan_logits, (void)wide_logits, (void)one_class_less, (void)null_logits, (void)forgetful, (void)refuses, (void)speechless;
    (void)asks_wrongly, (void)segfault, (void)aborts, (void)prints, (void)no_room, (void)old_status;
    (void)plans_more, (void)plans_what_is_required;
    method = METHODS[0];
    plugin = PLUGIN;
    plugin.methods = &method;
    FAULT;
    return &plugin;
}
