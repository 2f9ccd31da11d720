/* What the fake server and the load generator share: a clock, and finding a header in a NUL-terminated head. */
#ifndef BENCH_HTTP_H
#define BENCH_HTTP_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static inline int64_t now_us(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000) + time.tv_nsec / 1000;
}

/* The value of a header, without leading blanks, or NULL. `name` is in lower case and ends with the colon. */
static inline const char *header(const char *head, const char *name)
{
    size_t length = strlen(name);
    for (const char *line = strchr(head, '\n'); line; line = strchr(line, '\n')) {
        line++;
        if ((*line | 0x20) == *name && strncasecmp(line, name, length) == 0)
            return line + length + strspn(line + length, " \t");
    }
    return NULL;
}

static inline int header_is(const char *head, const char *name, const char *value)
{
    const char *found = header(head, name);
    return found && strncasecmp(found, value, strlen(value)) == 0;
}

static inline long long content_length(const char *head)
{
    const char *found = header(head, "content-length:");
    return found ? strtoll(found, NULL, 10) : -1;
}

#endif
