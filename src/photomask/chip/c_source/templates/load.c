/* Gives the constants of a file to the network. */
static int load(const char *path)
{
    static const char *const problems[] = {
        "is no file of constants, or is truncated", "holds the constants of another program",
        "is truncated, or longer than it should be", "is altered: its checksum does not match",
        "is little-endian, this processor is not",
    };
    FILE *const file = fopen(path, "rb");
    if (file == NULL) {
        return fail(path, strerror(errno));
    }
    const long size = size_of_file(file);
    unsigned char *const bytes = size > 0 ? malloc((size_t)size) : NULL;
    if (bytes == NULL || fread(bytes, 1, (size_t)size, file) != (size_t)size) {
        free(bytes);
        fclose(file);
        return fail(path, "is empty, or cannot be read");
    }
    fclose(file);
    const int problem = @NAME@_load(bytes, (size_t)size);
    free(bytes);
    return problem == 0 ? 0 : fail(path, problems[problem - 1]);
}

