/* Nearest class mean on pixels, in plain C: proof that a binary plugin needs no Rust.
 *
 *     cc -O2 -shared -fPIC -o libnearest_mean_c.so nearest_mean.c
 *     cilbench run --plugin ./libnearest_mean_c.so --method nearest-mean-c
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../cilbench.h"

static const CilStatus OK = {sizeof(CilStatus), CIL_OK, NULL};
static const CilStatus NO_MEMORY = {sizeof(CilStatus), CIL_FAILED, "there is no memory left"};

/* The mean image of every class seen, and room for what the last call gave back. */
typedef struct {
    uint64_t classes, pixels;
    float *means; /* (classes, pixels) */
    float *logits;
    uint64_t shape[2];
    CilEntry entry;
    uint32_t revision; /* of the harness */
    char text[256];
} Model;

/* Refuses a struct that requires fields of a later revision: this plugin knows none of them. */
static CilStatus understood(char text[256], const char *what, const char *required,
                            uint32_t revision) {
    if (!required || !*required) return OK;
    snprintf(text, 256,
             "%s requires '%s', which this plugin (ABI %d.%d) does not know and the harness "
             "(ABI %d.%u) does: rebuild the plugin against it",
             what, required, CIL_ABI_VERSION, CIL_ABI_REVISION, CIL_ABI_VERSION, revision);
    return (CilStatus){sizeof(CilStatus), CIL_UNSUPPORTED, text};
}

static CilStatus create(const CilSetup *setup, void **instance) {
    static char text[256]; /* a failed create has no instance that could keep it */
    const CilBackbone *backbone = setup->backbone;
    CilStatus status = understood(text, "CilSetup", setup->required, setup->revision);
    if (status.code != CIL_OK) return status;
    status = understood(text, "CilBackbone", backbone->required, setup->revision);
    if (status.code != CIL_OK) return status;
    Model *model = calloc(1, sizeof *model);
    if (!model) return NO_MEMORY;
    model->pixels = 3 * backbone->image_size * backbone->image_size;
    model->revision = setup->revision;
    *instance = model;
    return OK;
}

static void destroy(void *instance) {
    Model *model = instance;
    free(model->means);
    free(model->logits);
    free(model);
}

static CilStatus plan(void *instance, const CilTask *task, CilPlan *out) {
    Model *model = instance;
    /* No epochs: one pass of its own, in end_task. */
    CilPlan plan = {.size = sizeof plan, .batch_size = 64, .view = CIL_VIEW_TEST};
    cil_put(out, &plan);
    return understood(model->text, "CilTask", task->required, model->revision);
}

static CilStatus begin_task(void *instance, const CilTask *task, const CilContext *context) {
    (void)instance, (void)task, (void)context;
    return OK;
}

static CilStatus observe(void *instance, const CilBatch *batch, uint64_t epoch, uint64_t step,
                         const CilTask *task, const CilContext *context, CilLosses *out) {
    (void)instance, (void)batch, (void)epoch, (void)step, (void)task, (void)context, (void)out;
    return OK;
}

/* Makes room for classes up to `classes`. */
static int grow(Model *model, uint64_t classes) {
    float *means = realloc(model->means, classes * model->pixels * sizeof *means);
    if (!means) return 0;
    uint64_t old = model->classes * model->pixels;
    memset(means + old, 0, (classes * model->pixels - old) * sizeof *means);
    model->means = means;
    model->classes = classes;
    return 1;
}

static CilStatus end_task(void *instance, const CilTask *task, const CilContext *context) {
    Model *model = instance;
    uint64_t classes = task->first_class + task->class_count, n = model->pixels;
    if (classes > model->classes && !grow(model, classes)) return NO_MEMORY;
    uint64_t *counts = calloc(classes, sizeof *counts);
    if (!counts) return NO_MEMORY;
    uint32_t pass;
    CilStatus status = context->open_pass(context->host, CIL_VIEW_TEST, 64, &pass);
    while (status.code == CIL_OK) {
        CilBatch batch = {.size = sizeof batch};
        status = context->next_batch(context->host, pass, &batch);
        if (status.code != CIL_OK || batch.count == 0) break;
        for (uint64_t i = 0; i < batch.count; i++) {
            float *mean = model->means + batch.labels[i] * n;
            const float *image = batch.images + i * n;
            float k = (float)++counts[batch.labels[i]];
            for (uint64_t p = 0; p < n; p++) mean[p] += (image[p] - mean[p]) / k;
        }
    }
    free(counts);
    return status;
}

/* Minus the squared distance to every mean. */
static CilStatus predict(void *instance, const CilBatch *images, CilLogits *out) {
    Model *model = instance;
    uint64_t n = model->pixels;
    float *logits = realloc(model->logits, (images->count * model->classes + 1) * sizeof *logits);
    if (!logits) return NO_MEMORY;
    model->logits = logits;
    for (uint64_t i = 0; i < images->count; i++) {
        for (uint64_t c = 0; c < model->classes; c++) {
            float sum = 0;
            for (uint64_t p = 0; p < n; p++) {
                float d = images->images[i * n + p] - model->means[c * n + p];
                sum -= d * d;
            }
            logits[i * model->classes + c] = sum;
        }
    }
    CilLogits found = {sizeof found, images->count, model->classes, logits};
    cil_put(out, &found);
    return OK;
}

static CilStatus state(void *instance, CilState *out) {
    Model *model = instance;
    if (model->classes == 0) return OK; /* nothing learned: no tensors */
    model->shape[0] = model->classes;
    model->shape[1] = model->pixels;
    uint64_t bytes = model->classes * model->pixels * sizeof(float);
    CilTensor means = {sizeof means, CIL_F32, 2, model->shape, model->means, bytes};
    model->entry = (CilEntry){sizeof(CilEntry), "means", CIL_KIND_STATISTIC, means};
    CilState state = {sizeof state, 1, &model->entry};
    cil_put(out, &state);
    return OK;
}

static CilStatus restore(void *instance, const CilState *state, const CilTask *tasks,
                         uint64_t count, uint32_t running) {
    (void)running;
    Model *model = instance;
    for (uint64_t i = 0; i < count; i++) {
        const char *required = CIL_AT(CilTask, tasks, i)->required;
        CilStatus status = understood(model->text, "CilTask", required, model->revision);
        if (status.code != CIL_OK) return status;
    }
    if (state->count == 0) return OK;
    const CilEntry *entry = CIL_AT(CilEntry, state->items, 0);
    const CilTensor *means = &entry->value;
    if (state->count != 1 || strcmp(entry->name, "means") || means->element != CIL_F32 ||
        means->rank != 2 || means->shape[1] != model->pixels) {
        const char *text = "the state is not one tensor 'means' of (classes, pixels)";
        return (CilStatus){sizeof(CilStatus), CIL_FAILED, text};
    }
    if (!grow(model, means->shape[0])) return NO_MEMORY;
    memcpy(model->means, means->data, means->bytes);
    return OK;
}

static const CilMethod METHODS[] = {{
    .size = sizeof(CilMethod),
    .name = "nearest-mean-c",
    .version = "1",
    .summary = "nearest class mean on pixels, in plain C",
    .paper = "",
    .trains = "nothing",
    .presets = "",
    .fields = "[]",
    .access = CIL_ACCESS_STREAM,
    .create = create,
    .destroy = destroy,
    .plan = plan,
    .begin_task = begin_task,
    .observe = observe,
    .end_task = end_task,
    .predict = predict,
    .state = state,
    .restore = restore,
}};

static const CilPlugin PLUGIN = {
    .abi = CIL_ABI_VERSION,
    .size = sizeof(CilPlugin),
    .revision = CIL_ABI_REVISION,
    .method_count = 1,
    .name = "nearest-mean-c",
    .version = "0.1.0",
    .methods = METHODS,
};

const CilPlugin *cilbench_plugin(void) { return &PLUGIN; }
