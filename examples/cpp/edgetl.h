/* Classify photos with a model that `edgetl export` wrote: the same answers as edgetl in Python.
 *
 * A C interface, so that C#, Rust, Java and Swift can bind to it. Every function that can fail
 * returns a code and writes the reason to `error`, which may be NULL. Nothing aborts, throws,
 * prints or keeps global state. One model may be shared by threads; closing it is the exception.
 * Strings are UTF-8.
 */
#ifndef EDGETL_H
#define EDGETL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum edgetl_code {
    EDGETL_OK = 0,
    EDGETL_BAD_ARGUMENT = 1,
    EDGETL_BAD_PHOTO = 2,     /* not one whole photo of a format that is decoded here */
    EDGETL_BAD_MODEL = 3,     /* missing, damaged, of a later schema, or not written by edgetl */
    EDGETL_RUN_FAILED = 4,    /* onnxruntime failed, or the answer is not finite */
    EDGETL_DIFFERENT = 5,     /* the self-test's answers are not the trained model's */
    EDGETL_OUT_OF_MEMORY = 6
} edgetl_code;

typedef struct edgetl_error {
    edgetl_code code;
    char message[512]; /* what was wrong, and what to do; cut if it is longer */
} edgetl_error;

/* ---- Photos ---- */

typedef struct edgetl_image {
    uint8_t *pixels; /* RGB, height × width × 3 bytes, rows from the top without padding */
    int32_t width, height;
} edgetl_image;

/* Decode a JPEG or PNG file's bytes, upright, transparency on white: the pixels that edgetl decodes
 * in Python. Other formats are refused by name.
 * max_pixels  the largest width × height that is decoded; 0: 100 million
 * image       free it with edgetl_free_image; after an error, its pixels are NULL */
edgetl_code edgetl_decode(const void *bytes, size_t size, uint64_t max_pixels, edgetl_image *image,
                          edgetl_error *error);
void edgetl_free_image(edgetl_image *image);

/* ---- Models ---- */

typedef struct edgetl_model edgetl_model;

/* Open a bundle folder or a lone model.onnx, and verify its checksums.
 * precision  which of a bundle's models ("fp32", "fp16", "int8"); NULL: its default
 * threads    threads inside one run; 0: one per core
 * model      close it with edgetl_close; after an error it is NULL */
edgetl_code edgetl_open(const char *path, const char *precision, int32_t threads,
                        edgetl_model **model, edgetl_error *error);
void edgetl_close(edgetl_model *model);

int32_t edgetl_classes(const edgetl_model *model);
/* Valid until the model is closed; NULL unless 0 <= index < classes. */
const char *edgetl_label(const edgetl_model *model, int32_t index);
/* Photos with a higher ood_score are unlike the training photos. NaN: the model has no score. */
double edgetl_unknown_threshold(const edgetl_model *model);

/* Classify `count` images: decoded ones, or RGB frames of a camera. A NULL output is left out.
 * logits, probabilities  count × classes values each
 * ood_scores             count values; NaN where the model has no such score */
edgetl_code edgetl_predict(const edgetl_model *model, const edgetl_image *images, size_t count,
                           float *logits, float *probabilities, float *ood_scores,
                           edgetl_error *error);
/* The pixels that the network sees of `image`: resized and cropped. edgetl_predict does this itself.
 * resized  free it with edgetl_free_image; after an error, its pixels are NULL */
edgetl_code edgetl_resize(const edgetl_model *model, const edgetl_image *image,
                          edgetl_image *resized, edgetl_error *error);
/* Write the indices of the `top` most probable classes, best first; returns how many there are. */
int32_t edgetl_top(const edgetl_model *model, const float *probabilities, int32_t top,
                   int32_t *indices);

/* ---- Self-test ---- */

typedef struct edgetl_golden {
    const char *file;
    const char *stage;  /* the first that differs: "files", "decode", "resized", "logits" or
                           "probabilities"; NULL: none does */
    const char *detail;
} edgetl_golden;

/* Run the bundle's golden photos here and compare with the answers kept in it.
 * report  called with each result, whose strings last as long as the call; may be NULL
 * Returns EDGETL_DIFFERENT if any differs, EDGETL_BAD_MODEL if there are no golden photos. */
edgetl_code edgetl_selftest(const edgetl_model *model,
                            void (*report)(const edgetl_golden *result, void *context),
                            void *context, edgetl_error *error);

#ifdef __cplusplus
}
#endif
#endif
