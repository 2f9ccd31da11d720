/* An incremental HTTP/1.1 response parser: Content-Length and chunked bodies, lines counted, the final words looked for. */
#ifndef BENCH_RESPONSE_H
#define BENCH_RESPONSE_H

#include <ctype.h>
#include <stdbool.h>
#include <stddef.h>

#include "http.h"

enum { HEAD_SIZE = 8192, NEAR_END = 1024 };
enum state { IN_HEAD, IN_BODY, IN_CHUNK_SIZE, IN_CHUNK, AFTER_CHUNK, IN_TRAILER, COMPLETE, MALFORMED };

struct response {
    enum state state;
    int status;
    bool closes;      /* the server said it would close the connection */
    bool blank;       /* the trailer line read now is empty so far */
    char last;        /* last byte of the body so far */
    long lines;       /* lines of the body with something on them */
    long long left;   /* bytes of the body or the chunk still to come */
    size_t tail_size; /* the end of the body so far */
    char tail[2 * NEAR_END];
    size_t head_size;
    char head[HEAD_SIZE + 1];
};

static const char *final_words = ""; /* what a complete body contains near its end */
static size_t final_size;

static inline void response_begin(struct response *r)
{
    memset(r, 0, offsetof(struct response, tail));
    r->head_size = 0;
    r->last = '\n';
}

static inline size_t smaller(size_t a, long long b)
{
    return b < (long long)a ? (size_t)b : a;
}

static inline void keep_tail(struct response *r, const char *data, size_t size)
{
    if (size >= NEAR_END) {
        data += size - NEAR_END;
        size = NEAR_END;
        r->tail_size = 0;
    } else if (r->tail_size + size > sizeof r->tail) {
        memmove(r->tail, r->tail + r->tail_size - NEAR_END, NEAR_END);
        r->tail_size = NEAR_END;
    }
    memcpy(r->tail + r->tail_size, data, size);
    r->tail_size += size;
}

/* Whether a complete body ended as it should. */
static inline bool response_ended(const struct response *r)
{
    return !final_size || memmem(r->tail, r->tail_size, final_words, final_size);
}

static inline void take_body(struct response *r, const char *data, size_t size)
{
    const char *end = data + size;
    for (const char *p = data; (p = memchr(p, '\n', end - p)); p++)
        r->lines += (p == data ? r->last : p[-1]) != '\n';
    r->last = end[-1];
    keep_tail(r, data, size);
}

static inline void head_done(struct response *r)
{
    const char *status = strchr(r->head, ' ');
    r->status = status ? atoi(status) : 0;
    r->closes = header_is(r->head, "connection:", "close");
    r->left = content_length(r->head);
    if (r->status < 200)
        r->state = r->status >= 100 ? IN_HEAD : MALFORMED;
    else if (header_is(r->head, "transfer-encoding:", "chunked"))
        r->state = IN_CHUNK_SIZE, r->left = 0;
    else if (r->left < 0)
        r->state = MALFORMED; /* ends with the connection: nobody could tell whether it is complete */
    else
        r->state = r->left ? IN_BODY : COMPLETE;
}

static inline size_t take_head(struct response *r, const char *data, size_t size)
{
    size_t before = r->head_size, copied = smaller(size, HEAD_SIZE - before);
    memcpy(r->head + before, data, copied);
    char *end = memmem(r->head, before + copied, "\r\n\r\n", 4);
    if (!end) {
        r->head_size += copied;
        r->state = copied < size ? MALFORMED : IN_HEAD;
        return size;
    }
    end[2] = 0;
    r->head_size = 0;
    head_done(r);
    return end + 4 - r->head - before;
}

static inline void chunk_size_byte(struct response *r, char byte)
{
    static const char digits[] = "0123456789abcdef";
    const char *digit = r->blank ? NULL : memchr(digits, tolower((unsigned char)byte), 16);
    if (byte == '\n') {
        r->state = r->left ? IN_CHUNK : IN_TRAILER;
        r->blank = !r->left;
    } else if (digit)
        r->left = r->left * 16 + (digit - digits);
    else
        r->blank = true; /* a chunk extension or the line end: no more digits */
}

static inline void line_byte(struct response *r, char byte)
{
    if (r->state == AFTER_CHUNK) {
        if (byte == '\n')
            r->state = IN_CHUNK_SIZE, r->left = 0, r->blank = false;
    } else if (byte == '\n') {
        if (r->blank)
            r->state = COMPLETE;
        r->blank = true;
    } else if (byte != '\r')
        r->blank = false;
}

/* Takes what belongs to this response and returns how much that was. Look at `state` afterwards. */
static inline size_t response_take(struct response *r, const char *data, size_t size)
{
    size_t used = 0;
    while (used < size && r->state < COMPLETE) {
        const char *at = data + used;
        if (r->state == IN_HEAD)
            used += take_head(r, at, size - used);
        else if (r->state == IN_BODY || r->state == IN_CHUNK) {
            size_t piece = smaller(size - used, r->left);
            take_body(r, at, piece);
            used += piece;
            if (!(r->left -= piece))
                r->state = r->state == IN_BODY ? COMPLETE : AFTER_CHUNK;
        } else if (r->state == IN_CHUNK_SIZE)
            chunk_size_byte(r, data[used++]);
        else
            line_byte(r, data[used++]);
    }
    return used;
}

#endif
