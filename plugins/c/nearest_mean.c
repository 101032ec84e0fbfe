/* Nearest class mean on pixels, in plain C: proof that a binary plugin needs no Rust.
 *
 *     cc -O2 -shared -fPIC -o libnearest_mean_c.so nearest_mean.c
 *     cilbench run --plugin ./libnearest_mean_c.so --method nearest-mean-c
 */
#include <stdlib.h>
#include <string.h>

#include "../cilbench.h"

static const CilStatus OK = {CIL_OK, NULL};
static const CilStatus NO_MEMORY = {CIL_FAILED, "there is no memory left"};

/* The mean image of every class seen, and room for what the last call gave back. */
typedef struct {
    uint64_t classes, pixels;
    float *means; /* (classes, pixels) */
    float *logits;
    uint64_t shape[2];
    CilEntry entry;
} Model;

static CilStatus create(const CilSetup *setup, void **instance) {
    Model *model = calloc(1, sizeof *model);
    if (!model) return NO_MEMORY;
    model->pixels = 3 * setup->backbone.image_size * setup->backbone.image_size;
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
    (void)instance, (void)task;
    *out = (CilPlan){.epochs = 0, .batch_size = 64, .view = CIL_VIEW_TEST}; /* one pass of its own, in end_task */
    return OK;
}

static CilStatus begin_task(void *instance, const CilTask *task, const CilContext *context) {
    (void)instance, (void)task, (void)context;
    return OK;
}

static CilStatus observe(void *instance, const CilBatch *batch, uint64_t epoch, uint64_t step, const CilTask *task, const CilContext *context,
                         CilLosses *out) {
    (void)instance, (void)batch, (void)epoch, (void)step, (void)task, (void)context, (void)out;
    return OK;
}

/* Makes room for classes up to `classes`. */
static int grow(Model *model, uint64_t classes) {
    float *means = realloc(model->means, classes * model->pixels * sizeof *means);
    if (!means) return 0;
    memset(means + model->classes * model->pixels, 0, (classes - model->classes) * model->pixels * sizeof *means);
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
    CilBatch batch;
    CilStatus status = context->open_pass(context->host, CIL_VIEW_TEST, 64, &pass);
    while (status.code == CIL_OK && (status = context->next_batch(context->host, pass, &batch)).code == CIL_OK && batch.count > 0) {
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
    *out = (CilLogits){images->count, model->classes, logits};
    return OK;
}

static CilStatus state(void *instance, CilState *out) {
    Model *model = instance;
    if (model->classes == 0) return OK; /* nothing learned: no tensors */
    model->shape[0] = model->classes;
    model->shape[1] = model->pixels;
    CilTensor means = {CIL_F32, 2, model->shape, model->means, model->classes * model->pixels * sizeof(float)};
    model->entry = (CilEntry){"means", CIL_KIND_STATISTIC, means};
    *out = (CilState){1, &model->entry};
    return OK;
}

static CilStatus restore(void *instance, const CilState *state, const CilTask *tasks, uint64_t count, uint32_t running) {
    (void)tasks, (void)count, (void)running;
    Model *model = instance;
    if (state->count == 0) return OK;
    const CilEntry *entry = &state->items[0];
    if (state->count != 1 || strcmp(entry->name, "means") || entry->value.element != CIL_F32 || entry->value.rank != 2 ||
        entry->value.shape[1] != model->pixels)
        return (CilStatus){CIL_FAILED, "the state is not one tensor 'means' of (classes, pixels)"};
    if (!grow(model, entry->value.shape[0])) return NO_MEMORY;
    memcpy(model->means, entry->value.data, entry->value.bytes);
    return OK;
}

static const CilMethod METHODS[] = {{
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

static const CilPlugin PLUGIN = {CIL_ABI_VERSION, 1, "nearest-mean-c", "0.1.0", METHODS};

const CilPlugin *cilbench_plugin(void) { return &PLUGIN; }
