/* A fake Ollama for measuring proxies. Every answer is rendered once, at the start; serving is a lookup and a write.
 *
 *   backend PORT TOKENS INTERVAL_US [-a ADDRESSES] [-f ONE_IN]
 *
 * Streams have TOKENS chunks, one each INTERVAL_US; 0 sends them in one burst.
 * -a N  listen on 127.0.0.1 to 127.0.0.N: N servers in one process
 * -f N  answer 500 to one POST in N, as an Ollama does whose runner has crashed
 *
 * A stream is one rendered piece of memory like any other answer; only, more of it is released at every tick.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http.h"

enum { EVENTS = 512, MOST_HEAD = 65536, PIECE = 262144, CARRY = 24, VECTOR = 768 };

#define CREATED "\"model\":\"m0\",\"created_at\":\"2026-01-01T00:00:00.000Z\""
#define COUNTS                                                                                                         \
    "\"done\":true,\"done_reason\":\"stop\",\"total_duration\":5000000000,\"load_duration\":500000000,"                \
    "\"prompt_eval_count\":15,\"prompt_eval_duration\":1000000000,\"eval_count\":150,\"eval_duration\":3500000000}"
#define TEXT                                                                                                           \
    "Machine learning is a part of artificial intelligence: programs find patterns in data and use them to predict "  \
    "what they have not seen."
#define MODEL(name, family)                                                                                            \
    "{\"name\":\"" name "\",\"model\":\"" name "\",\"modified_at\":\"2026-01-01T00:00:00Z\",\"size\":2300000000,"      \
    "\"digest\":\"" family "123\",\"details\":{\"parent_model\":\"\",\"format\":\"gguf\",\"family\":\"" family "\","   \
    "\"families\":[\"" family "\"],\"parameter_size\":\"3.8B\",\"quantization_level\":\"Q4_K_M\"}}"
#define DELTA(delta, finish)                                                                                           \
    "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1767225600,\"model\":\"m0\","             \
    "\"choices\":[{\"index\":0,\"delta\":" delta ",\"finish_reason\":" finish "}]}"

/* `first` bytes are sent at once, then `step` bytes per tick; the last tick sends the rest. step 0: all at once. */
struct answer {
    char *data;
    size_t size, first, step;
};

static struct answer chat, chat_stream, generate, generate_stream, completion, completion_stream;
static struct answer tags, models, ps, version, show, embed, embeddings, vectors, running, nothing, failure;

static const struct route {
    const char *path;
    const struct answer *whole, *streamed;
    bool streams_by_default;
} ROUTES[] = {
    {"/api/chat", &chat, &chat_stream, true},
    {"/v1/chat/completions", &completion, &completion_stream, false},
    {"/api/generate", &generate, &generate_stream, true},
    {"/api/embed", &embed, NULL, false},
    {"/api/embeddings", &embeddings, NULL, false},
    {"/v1/embeddings", &vectors, NULL, false},
    {"/api/tags", &tags, NULL, false},
    {"/api/ps", &ps, NULL, false},
    {"/api/version", &version, NULL, false},
    {"/api/show", &show, NULL, false},
    {"/v1/models", &models, NULL, false},
    {"/", &running, NULL, false},
    {NULL, &nothing, NULL, false},
};

struct conn {
    int fd;
    bool listener, in_body, chunked, post, blocked, ticking;
    char streams; /* 't', 'f', or 0 while the body has not said */
    long long body_left;
    const struct route *route;
    char *kept; /* input that could not be used yet */
    size_t kept_size;
    const struct answer *answer; /* being sent; NULL while a request is read */
    size_t sent, released;
    int64_t due;
    TAILQ_ENTRY(conn) later;
};

static TAILQ_HEAD(, conn) ticks = TAILQ_HEAD_INITIALIZER(ticks); /* one interval for all, so nearly sorted by itself */
static int epoll;
static long tokens, interval, fail_one_in, posts;

/* ---- rendering -------------------------------------------------------------------------------------------------- */

static void render(struct answer *answer, const char *status, const char *type, const char *body)
{
    int size = asprintf(&answer->data, "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n%s", status, type,
                        strlen(body), body);
    if (size < 0)
        abort();
    answer->size = answer->first = size;
}

static void render_json(struct answer *answer, const char *body)
{
    render(answer, "200 OK", "application/json; charset=utf-8", body);
}

static void render_stream(struct answer *answer, const char *type, const char *token, const char *end)
{
    char chunk[1024];
    size_t step = snprintf(chunk, sizeof chunk, "%zx\r\n%s\r\n", strlen(token), token);
    FILE *out = open_memstream(&answer->data, &answer->size);
    size_t first = fprintf(out, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n", type);
    for (long i = 0; i < tokens; i++)
        fwrite(chunk, 1, step, out);
    fprintf(out, "%zx\r\n%s\r\n0\r\n\r\n", strlen(end), end);
    fclose(out);
    answer->first = interval ? first : answer->size;
    answer->step = interval ? step : 0;
}

static void render_vector(struct answer *answer, const char *before, const char *after)
{
    char *body;
    size_t size;
    FILE *out = open_memstream(&body, &size);
    fputs(before, out);
    for (int i = 0; i < VECTOR; i++)
        fprintf(out, "%s%.7f", i ? "," : "", (i * 7919 % 2000 - 1000) / 21345.0);
    fputs(after, out);
    fclose(out);
    render_json(answer, body);
    free(body);
}

static void render_chats(void)
{
    render_json(&chat, "{" CREATED ",\"message\":{\"role\":\"assistant\",\"content\":\"" TEXT "\"}," COUNTS);
    render_json(&generate, "{" CREATED ",\"response\":\"" TEXT "\"," COUNTS);
    render_json(&completion, "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1767225600,\"model\":\"m0\","
                             "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"" TEXT "\"},"
                             "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":15,\"completion_tokens\":150,"
                             "\"total_tokens\":165}}");
    render_stream(&chat_stream, "application/x-ndjson",
                  "{" CREATED ",\"message\":{\"role\":\"assistant\",\"content\":\" token\"},\"done\":false}\n",
                  "{" CREATED ",\"message\":{\"role\":\"assistant\",\"content\":\"\"}," COUNTS "\n");
    render_stream(&generate_stream, "application/x-ndjson", "{" CREATED ",\"response\":\" token\",\"done\":false}\n",
                  "{" CREATED ",\"response\":\"\"," COUNTS "\n");
    render_stream(&completion_stream, "text/event-stream",
                  "data: " DELTA("{\"role\":\"assistant\",\"content\":\" token\"}", "null") "\n\n",
                  "data: " DELTA("{}", "\"stop\"") "\n\ndata: [DONE]\n\n");
}

static void render_rest(void)
{
    render_json(&tags, "{\"models\":[" MODEL("m0:latest", "phi3") "," MODEL("nomic-embed:latest", "nomic-bert") "]}");
    render_json(&models, "{\"object\":\"list\",\"data\":[{\"id\":\"m0\",\"object\":\"model\",\"created\":1767225600,"
                         "\"owned_by\":\"library\"}]}");
    render_json(&ps, "{\"models\":[{\"name\":\"m0:latest\",\"model\":\"m0:latest\",\"size\":3000000000,\"digest\":\"phi3123\","
                     "\"details\":{},\"expires_at\":\"2036-01-01T00:00:00Z\",\"size_vram\":3000000000,"
                     "\"context_length\":4096}]}");
    render_json(&version, "{\"version\":\"0.12.0\"}");
    render_json(&show, "{\"details\":{\"family\":\"phi3\"},\"model_info\":{},\"capabilities\":[\"completion\",\"embedding\"]}");
    render_json(&nothing, "{}");
    render(&running, "200 OK", "text/plain; charset=utf-8", "Ollama is running");
    render(&failure, "500 Internal Server Error", "application/json; charset=utf-8", 
           "{\"error\":\"llama runner process has terminated: exit status 2\"}");
    render_vector(&embed, "{\"model\":\"nomic-embed\",\"embeddings\":[[", "]],\"total_duration\":14000000}");
    render_vector(&embeddings, "{\"embedding\":[", "]}");
    render_vector(&vectors, "{\"object\":\"list\",\"model\":\"nomic-embed\",\"data\":[{\"object\":\"embedding\",\"index\":0,"
                            "\"embedding\":[", "]}],\"usage\":{\"prompt_tokens\":8,\"total_tokens\":8}}");
}

/* ---- answering -------------------------------------------------------------------------------------------------- */

static void watch(struct conn *conn, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = conn};
    epoll_ctl(epoll, operation, conn->fd, &event);
}

static void drop(struct conn *conn)
{
    if (conn->ticking)
        TAILQ_REMOVE(&ticks, conn, later);
    close(conn->fd);
    free(conn->kept);
    free(conn);
}

static bool flush(struct conn *conn)
{
    while (conn->sent < conn->released) {
        ssize_t wrote = write(conn->fd, conn->answer->data + conn->sent, conn->released - conn->sent);
        if (wrote < 0 && errno != EAGAIN)
            return false;
        if (wrote < 0)
            break;
        conn->sent += wrote;
    }
    bool blocked = conn->sent < conn->released;
    if (blocked != conn->blocked)
        watch(conn, EPOLL_CTL_MOD, blocked ? EPOLLIN | EPOLLOUT : EPOLLIN);
    conn->blocked = blocked;
    if (conn->sent == conn->answer->size)
        conn->answer = NULL;
    return true;
}

static void tick_later(struct conn *conn, int64_t due)
{
    conn->due = due;
    conn->ticking = true;
    TAILQ_INSERT_TAIL(&ticks, conn, later);
}

static const struct answer *choose(const struct conn *conn)
{
    if (conn->post && fail_one_in && ++posts % fail_one_in == 0)
        return &failure;
    bool streams = conn->streams ? conn->streams == 't' : conn->route->streams_by_default;
    return streams && conn->route->streamed ? conn->route->streamed : conn->route->whole;
}

static bool answer(struct conn *conn)
{
    conn->answer = choose(conn);
    conn->sent = 0;
    conn->released = conn->answer->first;
    if (conn->answer->step)
        tick_later(conn, now_us() + interval);
    return flush(conn);
}

static void release_more(struct conn *conn)
{
    const struct answer *answer = conn->answer;
    TAILQ_REMOVE(&ticks, conn, later);
    conn->ticking = false;
    conn->released += answer->step;
    if (conn->released > answer->first + tokens * answer->step)
        conn->released = answer->size;
    else
        tick_later(conn, conn->due + interval);
    if (!conn->blocked && !flush(conn))
        drop(conn);
}

/* ---- reading requests: each taker returns how many bytes it used, 0 to wait for more ------------------------------ */

static const struct route *route_of(const char *path)
{
    size_t length = strcspn(path, " ?");
    const struct route *route = ROUTES;
    while (route->path && (strncmp(route->path, path, length) || route->path[length]))
        route++;
    return route;
}

static size_t take_head(struct conn *conn, char *data, size_t size)
{
    char *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end)
        return 0;
    end[2] = 0;
    const char *path = strchr(data, ' ');
    conn->route = route_of(path ? path + 1 : "");
    conn->post = *data == 'P';
    conn->streams = 0;
    conn->chunked = header_is(data, "transfer-encoding:", "chunked");
    conn->body_left = conn->post ? content_length(data) : 0;
    if (conn->body_left < 0)
        conn->body_left = 0;
    conn->in_body = true;
    end[2] = '\r';
    return end - data + (conn->chunked ? 2 : 4); /* chunked: the line end stays, the last chunk is found by it */
}

static void note_stream(struct conn *conn, const char *data, size_t size)
{
    const char *found = conn->streams ? NULL : memmem(data, size, "\"stream\":", 9);
    if (!found || found + 10 >= data + size)
        return;
    conn->streams = found[9] == ' ' ? found[10] : found[9];
}

static size_t take_body(struct conn *conn, char *data, size_t size)
{
    char *end = conn->chunked ? memmem(data, size, "\r\n0\r\n\r\n", 7) : NULL;
    size_t body = end ? (size_t)(end + 7 - data) : (size_t)conn->body_left;
    bool whole = end || (!conn->chunked && size >= body);
    note_stream(conn, data, whole ? body : size);
    if (whole) {
        conn->in_body = false;
        return body;
    }
    size_t used = size > CARRY ? size - CARRY : 0; /* what we look for may continue in the next piece */
    if (!conn->chunked)
        conn->body_left -= used;
    return used;
}

static bool keep(struct conn *conn, const char *data, size_t size)
{
    if (size > MOST_HEAD)
        return false;
    if (size) {
        conn->kept = realloc(conn->kept, size);
        memcpy(conn->kept, data, size);
    }
    conn->kept_size = size;
    return true;
}

static bool take(struct conn *conn, char *data, size_t size)
{
    while (size && !conn->answer) {
        size_t used = conn->in_body ? 0 : take_head(conn, data, size);
        data += used, size -= used;
        if (!conn->in_body)
            break;
        size_t body = take_body(conn, data, size);
        data += body, size -= body;
        if (!conn->in_body && !answer(conn))
            return false;
        if (conn->in_body)
            break;
    }
    return keep(conn, data, size);
}

static bool on_input(struct conn *conn)
{
    static char data[MOST_HEAD + PIECE];
    if (conn->kept_size)
        memcpy(data, conn->kept, conn->kept_size);
    ssize_t got = read(conn->fd, data + conn->kept_size, PIECE);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    return take(conn, data, conn->kept_size + got);
}

/* ---- the loop --------------------------------------------------------------------------------------------------- */

static void on_accept(const struct conn *listener)
{
    int fd, one = 1;
    while ((fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct conn *conn = calloc(1, sizeof *conn);
        conn->fd = fd;
        watch(conn, EPOLL_CTL_ADD, EPOLLIN);
    }
}

static void on_event(struct conn *conn, uint32_t events)
{
    if (conn->listener)
        on_accept(conn);
    else if ((events & EPOLLOUT && conn->answer && !flush(conn)) || (events & ~EPOLLOUT && !on_input(conn)))
        drop(conn);
}

static void listen_on(int port, int offset)
{
    int one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct conn *listener = calloc(1, sizeof *listener);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + offset);
    listener->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    listener->listener = true;
    setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener->fd, (struct sockaddr *)&address, sizeof address) || listen(listener->fd, 4096)) {
        perror("backend: cannot listen");
        exit(1);
    }
    watch(listener, EPOLL_CTL_ADD, EPOLLIN);
}

static int until_next_tick(void)
{
    const struct conn *next = TAILQ_FIRST(&ticks);
    if (!next)
        return -1;
    int64_t wait = next->due - now_us();
    return wait < 0 ? 0 : (int)((wait + 999) / 1000);
}

static void serve(void)
{
    struct epoll_event events[EVENTS];
    struct conn *next;
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, until_next_tick());
        for (int i = 0; i < count; i++)
            on_event(events[i].data.ptr, events[i].events);
        int64_t now = now_us();
        while ((next = TAILQ_FIRST(&ticks)) && next->due <= now)
            release_more(next);
    }
}

static int usage(void)
{
    fputs("usage: backend PORT TOKENS INTERVAL_US [-a ADDRESSES] [-f ONE_IN]\n", stderr);
    return 2;
}

int main(int count, char **words)
{
    int option, addresses = 1;
    while ((option = getopt(count, words, "a:f:")) != -1) {
        if (option == 'a')
            addresses = atoi(optarg);
        else if (option == 'f')
            fail_one_in = atol(optarg);
        else
            return usage();
    }
    if (count - optind != 3)
        return usage();
    tokens = atol(words[optind + 1]);
    interval = atol(words[optind + 2]);

    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);

    render_chats();
    render_rest();
    epoll = epoll_create1(0);
    for (int i = 0; i < addresses; i++)
        listen_on(atoi(words[optind]), i);
    serve();
}
