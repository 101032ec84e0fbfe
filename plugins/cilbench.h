/* The C ABI of a binary plugin of cilbench, version 2.
 *
 * The rules (sizes, ownership, threads, lifetimes, failing) are those of
 * framework/core/src/plugin/abi.rs. The folder abi beside it has the same structs in Rust with
 * every field explained, and a test compares the two field by field. In short:
 *   - The library has one function, cilbench_plugin, which always gives the same table.
 *   - Every struct begins with its size. Set it to sizeof in every struct that you make, also in
 *     one that a function of a CilContext is to fill. Leave out the fields that you do not need:
 *     zero means the behaviour of before.
 *   - Later revisions may append fields to a struct. Never write to an out parameter as a whole:
 *     fill a struct of your own and hand it over with cil_put. Step through a list by the size of
 *     its first element, or with CIL_AT.
 *   - A struct with a field `required` names the later fields that you must understand, separated
 *     by commas. It is null if there are none. Fail with CIL_UNSUPPORTED and the name if you do not
 *     know one, as c/nearest_mean.c does.
 *   - What you are passed is valid until you return. What you give back stays valid until the next
 *     call on the same instance.
 *   - What a function of a CilContext gave you is valid until you call one of them again, or
 *     return: copy what you keep.
 *   - All calls of an instance come from one thread, one at a time. The functions of a CilContext
 *     may be called only meanwhile.
 *   - Nobody frees the other side's memory. Texts are UTF-8 and end with a zero byte. Libraries are
 *     never unloaded. */
#ifndef CILBENCH_H
#define CILBENCH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CIL_ABI_VERSION 2
#define CIL_ABI_REVISION 0

/* CilStatus.code */
enum {
    CIL_OK = 0,
    CIL_FAILED = 1,
    CIL_USAGE = 2,
    CIL_UNSUPPORTED = 3,
    CIL_DIVERGED = 4,
    CIL_INTERRUPTED = 5
};
/* CilTensor.element */
enum {
    CIL_NONE = 0,
    CIL_F32 = 1,
    CIL_F64 = 2,
    CIL_BF16 = 3,
    CIL_F16 = 4,
    CIL_I64 = 5,
    CIL_U8 = 6,
    CIL_U32 = 7
};
/* Views */
enum { CIL_VIEW_TRAIN = 1, CIL_VIEW_TEST = 2 };
/* CilMethod.access */
enum { CIL_ACCESS_STREAM = 1, CIL_ACCESS_MEMORY = 2, CIL_ACCESS_ALL = 3 };
/* Laws of draws */
enum { CIL_LAW_UNIFORM = 1, CIL_LAW_NORMAL = 2, CIL_LAW_PERMUTATION = 3 };
/* CilEntry.kind */
enum {
    CIL_KIND_TRAINED = 1,
    CIL_KIND_STATISTIC = 2,
    CIL_KIND_OPTIMISER = 3,
    CIL_KIND_BUFFER = 4
};

/* Never grows. */
typedef struct {
    uint64_t size;
    uint32_t code;
    const char *text; /* null if CIL_OK */
} CilStatus;

/* Never grows. */
typedef struct {
    uint64_t size;
    uint32_t element;
    uint32_t rank;
    const uint64_t *shape;
    const void *data; /* aligned to 8 bytes */
    uint64_t bytes;
} CilTensor;

typedef struct {
    uint64_t size;
    uint64_t count; /* 0 at the end of a pass */
    uint64_t height;
    uint64_t width;
    const float *images; /* (count, 3, height, width) in [0, 1] */
    const int64_t *labels;
    const uint64_t *positions;
} CilBatch;

typedef struct {
    uint64_t size;
    uint64_t classes;
    uint64_t tasks;
    uint32_t domain_incremental;
    const char *required;
} CilScenario;

typedef struct {
    uint64_t size;
    uint64_t index;
    uint64_t tasks;
    uint64_t first_class;
    uint64_t train_images;
    uint64_t class_count;
    const uint64_t *classes;
    const char *const *class_names;
    const char *domain; /* null if tasks are no domains */
    const char *required;
} CilTask;

typedef struct {
    uint64_t size;
    const char *entry;
    const char *name;
    const char *weights; /* null for a kind that brings its own; gone once create returns */
    const char *weights_hash;
    uint64_t dim;
    uint64_t blocks;
    uint64_t heads;
    uint64_t patch;
    uint64_t image_size;
    double mean[3];
    double std[3];
    const char *required;
} CilBackbone;

typedef struct {
    uint64_t size;
    const char *config; /* a JSON object */
    const char *device; /* cpu, or cuda:<n> */
    uint32_t dtype;
    uint32_t revision; /* of the harness */
    const CilBackbone *backbone;
    const char *required;
} CilSetup;

typedef struct {
    uint64_t size;
    uint64_t id;
    int64_t label;
    uint64_t task;
    CilTensor payload;
} CilExemplar;

typedef struct {
    uint64_t size;
    uint64_t count;
    const CilExemplar *items;
} CilExemplars;

typedef struct {
    uint64_t size;
    uint64_t epochs;
    uint64_t batch_size;
    uint32_t view;
    uint32_t drop_last;  /* not 0: a smaller last batch is left out */
    uint64_t steps;      /* training ends after so many; 0 for whole epochs */
    uint64_t test_batch; /* images per predict while scoring; 0 for the harness's number */
    const char *required;
} CilPlan;

typedef struct {
    uint64_t size;
    const char *name;
    double value;
} CilLoss;

typedef struct {
    uint64_t size;
    uint64_t count;
    const CilLoss *items;
} CilLosses;

typedef struct {
    uint64_t size;
    uint64_t rows;
    uint64_t columns;
    const float *data; /* (rows, columns) */
} CilLogits;

typedef struct {
    uint64_t size;
    const char *name;
    uint32_t kind;
    CilTensor value;
} CilEntry;

typedef struct {
    uint64_t size;
    uint64_t count;
    const CilEntry *items;
} CilState;

typedef struct {
    uint64_t size;
    const char *key;
    const char *value;
} CilPair;

typedef struct {
    uint64_t size;
    uint64_t count;
    const CilEntry *items;
    uint64_t pair_count;
    const CilPair *pairs;
} CilModel;

typedef struct {
    uint64_t size;
    void *host; /* goes into every function */
    uint32_t probing;
    CilStatus (*draw)(void *host, const char *name, const uint64_t *shape, uint64_t rank,
                      uint32_t law, double low, double high, CilTensor *out);
    CilStatus (*given)(void *host, const char *name, CilTensor *out);
    CilStatus (*open_pass)(void *host, uint32_t view, uint64_t batch_size, uint32_t *pass);
    CilStatus (*next_batch)(void *host, uint32_t pass, CilBatch *out);
    CilStatus (*probe)(void *host, const char *name, const CilTensor *value);
    CilStatus (*memory_insert)(void *host, const uint64_t *positions, uint64_t count,
                               const CilTensor *payload, CilExemplars *out);
    CilStatus (*memory_remove)(void *host, const uint64_t *ids, uint64_t count);
    CilStatus (*memory_list)(void *host, CilExemplars *out);
    CilStatus (*memory_read)(void *host, const uint64_t *ids, uint64_t count, uint32_t view,
                             CilBatch *out);
} CilContext;

typedef struct {
    uint64_t size;
    const char *name;
    const char *version;
    const char *summary;
    const char *paper;
    const char *trains;
    const char *presets;
    const char *trial_settings; /* TOML: how the conformance suite tries it; may be null */
    const char *fields; /* [{"key": "epochs", "default": 5, "doc": "Passes over the images."}] */
    uint32_t access;
    CilStatus (*create)(const CilSetup *setup, void **instance);
    void (*destroy)(void *instance);
    CilStatus (*check)(void *instance, const CilScenario *scenario); /* may be null */
    CilStatus (*plan)(void *instance, const CilTask *task, CilPlan *out);
    CilStatus (*begin_task)(void *instance, const CilTask *task, const CilContext *context);
    CilStatus (*observe)(void *instance, const CilBatch *batch, uint64_t epoch, uint64_t step,
                         const CilTask *task, const CilContext *context, CilLosses *out);
    CilStatus (*end_task)(void *instance, const CilTask *task, const CilContext *context);
    CilStatus (*predict)(void *instance, const CilBatch *images, CilLogits *out);
    /* may be null */
    CilStatus (*cls_tokens)(void *instance, const CilBatch *images, CilTensor *out);
    CilStatus (*state)(void *instance, CilState *out);
    CilStatus (*restore)(void *instance, const CilState *state, const CilTask *tasks,
                         uint64_t count, uint32_t running);
    CilStatus (*export_model)(void *instance, CilModel *out); /* may be null */
    const char *required;
} CilMethod;

typedef struct {
    uint32_t abi; /* CIL_ABI_VERSION, first in every version */
    uint32_t size;
    uint32_t revision; /* CIL_ABI_REVISION */
    uint32_t method_count;
    const char *name;
    const char *version;
    const CilMethod *methods;
    const char *required;
} CilPlugin;

/* Element `i` of a list of structs of this type, which may be longer than here. */
#define CIL_AT(type, items, i) \
    ((const type *)(const void *)((const char *)(items) + (i) * (items)->size))

/* Writes `*value` to an out parameter, as much of it as the caller has room for. Both begin with
 * their sizes. */
static inline void cil_put(void *out, const void *value) {
    uint64_t room, size;
    memcpy(&room, out, sizeof room);
    memcpy(&size, value, sizeof size);
    if (size > room) size = room;
    memcpy(out, value, (size_t)size);
    memcpy(out, &size, sizeof size);
}

/* What a plugin defines. */
const CilPlugin *cilbench_plugin(void);

#ifdef __cplusplus
}
#endif

#endif
