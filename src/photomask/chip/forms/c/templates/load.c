/* Loads the constants from a file into the network. */
static int load(const char *path)
{
    static const char *const problems[] = {
        "is not a file of constants, or is truncated", "holds the constants of another program",
        "is truncated, or longer than it should be", "was altered: its checksum does not match",
        "is little-endian, but this processor is not",
    };
    static unsigned char bytes[CONSTANTS_BYTES + 1]; /* one more byte, to notice a longer file */
    FILE *const file = fopen(path, "rb");
    if (file == NULL) {
        return fail(path, strerror(errno));
    }
    const size_t size = fread(bytes, 1, sizeof bytes, file);
    const int unread = ferror(file);
    fclose(file);
    if (unread) {
        return fail(path, "cannot be read");
    }
    const int problem = @NAME@_load(bytes, size);
    return problem == 0 ? 0 : fail(path, problems[problem - 1]);
}

