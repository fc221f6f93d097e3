/* Faults that a fuzz build has to notice, for the test that it does. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

__attribute__((noinline)) int past_the_end(const uint8_t *data, size_t count)
{
    uint8_t *copy = malloc(count);
    if (!copy)
        return 0;
    memcpy(copy, data, count);
    int found = copy[count];
    free(copy);
    return found;
}

int after_the_end_of_its_life(const uint8_t *data, size_t count)
{
    uint8_t *copy = malloc(count);
    if (!copy)
        return 0;
    memcpy(copy, data, count);
    free(copy);
    return copy[0];
}

int more_than_fits(const uint8_t *data, size_t count)
{
    int32_t sum = INT32_MAX - 1;
    for (size_t index = 0; index < count; index++)
        sum += data[index];
    return sum;
}

int shifted_too_far(const uint8_t *data, size_t count)
{
    return 1 << (data[0] + count);
}

/* What nobody comes upon without seeing which branches are taken. */
int behind_a_word(const uint8_t *data, size_t count)
{
    if (count == 4 && data[0] == 'W' && data[1] == 'a' && data[2] == 'r' && data[3] == 'p')
        return past_the_end(data, count);
    return 0;
}
