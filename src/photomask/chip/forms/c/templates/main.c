/* Runs @NAME@ on the samples of a file, and compares the outputs with golden vectors.
 *
 *     @NAME@ check inputs.bin golden.bin@CONSTANTS_USAGE@
 *     @NAME@ run inputs.bin outputs.bin@CONSTANTS_USAGE@
 *
 * The files hold the samples one after the other, little-endian and without a header. A sample
 * holds all inputs (or outputs) in the order of the parameters of @NAME@_run. The exit status is 0
 * if the outputs are equal or were written, 1 if they differ, and 2 after an error.
 */
#include "@NAME@.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MOST_AXES @MOST_AXES@

struct tensor {
    const char *name;
    void *data;
    size_t elements;
    size_t width;           /* the bytes of an element */
    int is_signed;
    int rank;
    int sizes[MOST_AXES];   /* from the slowest axis to the fastest in memory */
    int axes[MOST_AXES];    /* the tensor's own axes in the same order */
};

@BUFFERS@

static const struct tensor inputs[] = {
@INPUTS@
};

static const struct tensor outputs[] = {
@OUTPUTS@
};

enum { INPUTS = sizeof inputs / sizeof *inputs, OUTPUTS = sizeof outputs / sizeof *outputs };

static int fail(const char *path, const char *problem)
{
    fprintf(stderr, "@NAME@: %s: %s\n", path, problem);
    return 2;
}

static size_t bytes_of(const struct tensor *tensors, size_t count)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
        total += tensors[i].elements * tensors[i].width;
    }
    return total;
}

/* Returns the size of an open file, or -1. */
static long size_of_file(FILE *file)
{
    if (fseek(file, 0, SEEK_END) != 0) {
        return -1;
    }
    const long size = ftell(file);
    return fseek(file, 0, SEEK_SET) == 0 ? size : -1;
}

/* Returns how many whole samples a file holds, or 0 after a message. */
static size_t samples_of(FILE *file, const char *path, size_t sample_bytes)
{
    const long size = size_of_file(file);
    if (size <= 0 || (size_t)size % sample_bytes != 0) {
        fprintf(stderr, "@NAME@: %s: holds %ld bytes, not a multiple of the %zu bytes of a "
                "sample; it is truncated or belongs to another program\n", path, size,
                sample_bytes);
        return 0;
    }
    return (size_t)size / sample_bytes;
}

static int read_tensors(FILE *file, const struct tensor *tensors, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (fread(tensors[i].data, tensors[i].width, tensors[i].elements, file) !=
            tensors[i].elements) {
            return 0;
        }
    }
    return 1;
}

static long long element(const void *data, size_t index, size_t width, int is_signed)
{
    const unsigned char *const bytes = (const unsigned char *)data + index * width;
    unsigned long long value = is_signed && bytes[width - 1] > 127 ? ~0ULL : 0;
    for (size_t i = width; i-- > 0;) {
        value = value << 8 | bytes[i];
    }
    return (long long)value;
}

static void print_mismatch(const struct tensor *tensor, size_t sample, size_t index,
                           const void *expected)
{
    size_t coordinate[MOST_AXES] = {0};
    size_t rest = index;
    for (int i = tensor->rank; i-- > 0;) {
        coordinate[tensor->axes[i]] = rest % (size_t)tensor->sizes[i];
        rest /= (size_t)tensor->sizes[i];
    }
    printf("first mismatch: sample %zu, output %s[", sample, tensor->name);
    for (int i = 0; i < tensor->rank; i++) {
        printf(i == 0 ? "%zu" : ", %zu", coordinate[i]);
    }
    printf("]: expected %lld, got %lld\n",
           element(expected, index, tensor->width, tensor->is_signed),
           element(tensor->data, index, tensor->width, tensor->is_signed));
}

/* Returns how many integers of a sample differ from the golden vector. Prints the first mismatch
 * of the whole run. */
static size_t compare(const unsigned char *golden, size_t sample, size_t before)
{
    size_t different = 0;
    for (size_t i = 0; i < OUTPUTS; i++) {
        const struct tensor *const tensor = &outputs[i];
        const unsigned char *const found = tensor->data;
        for (size_t j = 0; j < tensor->elements; j++) {
            if (memcmp(golden + j * tensor->width, found + j * tensor->width, tensor->width) != 0) {
                if (before + different == 0) {
                    print_mismatch(tensor, sample, j, golden);
                }
                different++;
            }
        }
        golden += tensor->elements * tensor->width;
    }
    return different;
}

static int run_sample(const char *path, size_t sample)
{
    const int status = @NAME@_run(@ARGUMENTS@);
    if (status > 0) {
        fprintf(stderr, "@NAME@: %s: sample %zu: input %s holds integers outside the range that "
                "the program accepts\n", path, sample, inputs[status - 1].name);
    }
    return status;
}

/* Runs every sample. Compares the outputs with `result` if `check`, else writes them to it. */
static int process(FILE *source, const char *source_path, FILE *result, const char *result_path,
                   int check)
{
    const size_t sample_bytes = bytes_of(outputs, OUTPUTS);
    const size_t samples = samples_of(source, source_path, bytes_of(inputs, INPUTS));
    size_t different = 0;
    if (samples == 0) {
        return 2;
    }
    if (check && samples_of(result, result_path, sample_bytes) != samples) {
        return fail(result_path, "does not hold one golden vector for every sample of the inputs");
    }
    static unsigned char golden[GOLDEN_BYTES];
    int status = 0;
    for (size_t sample = 0; status == 0 && sample < samples; sample++) {
        if (!read_tensors(source, inputs, INPUTS)) {
            status = fail(source_path, "cannot be read");
        } else if (run_sample(source_path, sample) != 0) {
            status = 2;
        } else if (check) {
            if (fread(golden, 1, sample_bytes, result) != sample_bytes) {
                status = fail(result_path, "cannot be read");
            } else {
                different += compare(golden, sample, different);
            }
        } else {
            for (size_t i = 0; i < OUTPUTS; i++) {
                if (fwrite(outputs[i].data, outputs[i].width, outputs[i].elements, result) !=
                    outputs[i].elements) {
                    status = fail(result_path, "cannot be written");
                }
            }
        }
    }
    if (status == 0 && check) {
        printf("%zu samples, %zu integers compared, %zu mismatches\n", samples,
               samples * INTEGERS, different);
        return different != 0;
    }
    return status;
}

@LOAD@
int main(int argc, char **argv)
{
    const uint16_t one = 1;
    const int check = argc >= 2 && strcmp(argv[1], "check") == 0;
    if (argc != @ARGC@ || (!check && strcmp(argv[1], "run") != 0)) {
        fprintf(stderr, "usage: %s check inputs.bin golden.bin@CONSTANTS_USAGE@\n"
                "       %s run inputs.bin outputs.bin@CONSTANTS_USAGE@\n", argv[0], argv[0]);
        return 2;
    }
    if (*(const unsigned char *)&one != 1) {
        return fail(argv[2], "the file is little-endian, but this processor is not");
    }
@CALL_LOAD@    FILE *const source = fopen(argv[2], "rb");
    if (source == NULL) {
        return fail(argv[2], strerror(errno));
    }
    FILE *const result = fopen(argv[3], check ? "rb" : "wb");
    if (result == NULL) {
        fclose(source);
        return fail(argv[3], strerror(errno));
    }
    int status = process(source, argv[2], result, argv[3], check);
    fclose(source);
    if (fclose(result) != 0) {
        status = fail(argv[3], strerror(errno));
    }
    if (status != 0 && !check) {
        remove(argv[3]);
    }
    return status;
}
