/* The C ABI of a binary plugin of cilbench, version 1.
 *
 * The rules - ownership, threads, lifetimes, failing - are those of framework/core/src/plugin/abi.rs, which has the same structs in Rust with
 * every field explained; a test compares the two field by field. In short:
 *   - the library has one function, cilbench_plugin, which always gives the same table;
 *   - what you are passed is valid until you return; what you give back stays valid until the next call on the same instance;
 *   - what a function of a CilContext gave you is valid until you call one of them again, or return: copy what you keep;
 *   - all calls of an instance come from one thread, one at a time; the functions of a CilContext may be called only meanwhile;
 *   - nobody frees the other side's memory; texts are UTF-8 and end with a zero byte; libraries are never unloaded. */
#ifndef CILBENCH_H
#define CILBENCH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CIL_ABI_VERSION 1

/* CilStatus.code */
enum { CIL_OK = 0, CIL_FAILED = 1, CIL_USAGE = 2, CIL_UNSUPPORTED = 3, CIL_DIVERGED = 4, CIL_INTERRUPTED = 5 };
/* CilTensor.element */
enum { CIL_NONE = 0, CIL_F32 = 1, CIL_F64 = 2, CIL_BF16 = 3, CIL_F16 = 4, CIL_I64 = 5, CIL_U8 = 6, CIL_U32 = 7 };
/* Views */
enum { CIL_VIEW_TRAIN = 1, CIL_VIEW_TEST = 2 };
/* CilMethod.access */
enum { CIL_ACCESS_STREAM = 1, CIL_ACCESS_MEMORY = 2, CIL_ACCESS_ALL = 3 };
/* Laws of draws */
enum { CIL_LAW_UNIFORM = 1, CIL_LAW_NORMAL = 2, CIL_LAW_PERMUTATION = 3 };
/* CilEntry.kind */
enum { CIL_KIND_TRAINED = 1, CIL_KIND_STATISTIC = 2, CIL_KIND_OPTIMISER = 3, CIL_KIND_BUFFER = 4 };

typedef struct {
    uint32_t code;
    const char *text; /* null if CIL_OK */
} CilStatus;

typedef struct {
    uint32_t element;
    uint32_t rank;
    const uint64_t *shape;
    const void *data; /* aligned to 8 bytes */
    uint64_t bytes;
} CilTensor;

typedef struct {
    uint64_t count; /* 0 at the end of a pass */
    uint64_t height;
    uint64_t width;
    const float *images; /* (count, 3, height, width) in [0, 1] */
    const int64_t *labels;
    const uint64_t *positions;
} CilBatch;

typedef struct {
    uint64_t index;
    uint64_t tasks;
    uint64_t first_class;
    uint64_t train_images;
    uint64_t class_count;
    const uint64_t *classes;
    const char *const *class_names;
    const char *domain; /* null if tasks are no domains */
} CilTask;

typedef struct {
    const char *entry;
    const char *name;
    const char *weights; /* null for a kind that brings its own; the file may be gone once create returns */
    const char *weights_hash;
    uint64_t dim;
    uint64_t blocks;
    uint64_t heads;
    uint64_t patch;
    uint64_t image_size;
    double mean[3];
    double std[3];
} CilBackbone;

typedef struct {
    const char *config; /* a JSON object */
    const char *device; /* cpu, or cuda:<n> */
    uint32_t dtype;
    CilBackbone backbone;
} CilSetup;

typedef struct {
    uint64_t id;
    int64_t label;
    uint64_t task;
    CilTensor payload;
} CilExemplar;

typedef struct {
    uint64_t count;
    const CilExemplar *items;
} CilExemplars;

typedef struct {
    void *host; /* goes into every function */
    uint32_t probing;
    CilStatus (*draw)(void *host, const char *name, const uint64_t *shape, uint64_t rank, uint32_t law, double low, double high, CilTensor *out);
    CilStatus (*given)(void *host, const char *name, CilTensor *out);
    CilStatus (*open_pass)(void *host, uint32_t view, uint64_t batch_size, uint32_t *pass);
    CilStatus (*next_batch)(void *host, uint32_t pass, CilBatch *out);
    CilStatus (*probe)(void *host, const char *name, const CilTensor *value);
    CilStatus (*memory_insert)(void *host, const uint64_t *positions, uint64_t count, const CilTensor *payload, CilExemplars *out);
    CilStatus (*memory_remove)(void *host, const uint64_t *ids, uint64_t count);
    CilStatus (*memory_list)(void *host, CilExemplars *out);
    CilStatus (*memory_read)(void *host, const uint64_t *ids, uint64_t count, uint32_t view, CilBatch *out);
} CilContext;

typedef struct {
    uint64_t epochs;
    uint64_t batch_size;
    uint32_t view;
} CilPlan;

typedef struct {
    const char *name;
    double value;
} CilLoss;

typedef struct {
    uint64_t count;
    const CilLoss *items;
} CilLosses;

typedef struct {
    uint64_t rows;
    uint64_t columns;
    const float *data; /* (rows, columns) */
} CilLogits;

typedef struct {
    const char *name;
    uint32_t kind;
    CilTensor value;
} CilEntry;

typedef struct {
    uint64_t count;
    const CilEntry *items;
} CilState;

typedef struct {
    const char *key;
    const char *value;
} CilPair;

typedef struct {
    uint64_t count;
    const CilEntry *items;
    uint64_t pair_count;
    const CilPair *pairs;
} CilModel;

typedef struct {
    const char *name;
    const char *version;
    const char *summary;
    const char *paper;
    const char *trains;
    const char *presets;
    const char *fields; /* [{"key": "epochs", "default": 5, "doc": "Passes over the images."}, ...] */
    uint32_t access;
    CilStatus (*create)(const CilSetup *setup, void **instance);
    void (*destroy)(void *instance);
    CilStatus (*check)(void *instance, uint64_t classes); /* may be null */
    CilStatus (*plan)(void *instance, const CilTask *task, CilPlan *out);
    CilStatus (*begin_task)(void *instance, const CilTask *task, const CilContext *context);
    CilStatus (*observe)(void *instance, const CilBatch *batch, uint64_t epoch, uint64_t step, const CilTask *task, const CilContext *context, CilLosses *out);
    CilStatus (*end_task)(void *instance, const CilTask *task, const CilContext *context);
    CilStatus (*predict)(void *instance, const CilBatch *images, CilLogits *out);
    CilStatus (*cls_tokens)(void *instance, const CilBatch *images, CilTensor *out); /* may be null */
    CilStatus (*state)(void *instance, CilState *out);
    CilStatus (*restore)(void *instance, const CilState *state, const CilTask *tasks, uint64_t count, uint32_t running);
    CilStatus (*export_model)(void *instance, CilModel *out); /* may be null */
} CilMethod;

typedef struct {
    uint32_t abi; /* CIL_ABI_VERSION, first in every version */
    uint32_t method_count;
    const char *name;
    const char *version;
    const CilMethod *methods;
} CilPlugin;

/* What a plugin defines. */
const CilPlugin *cilbench_plugin(void);

#ifdef __cplusplus
}
#endif

#endif
