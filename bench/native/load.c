/* A load generator for one core: one thread, epoll, nothing to install. Prints one line of JSON.
 *
 *   load closed  TARGET REQUEST CONNECTIONS SECONDS [-w WARM_UP] [-e END]
 *   load streams TARGET REQUEST STREAMS PER_SECOND STEADY [-s SETTLE] [-t TIMEOUT] [-e END]
 *
 * TARGET is HOST:PORT (an IPv4 address) or unix:PATH, REQUEST a file with the whole request as it goes over the wire.
 * closed: every connection sends the next request when its answer is complete; counted during SECONDS after WARM_UP.
 * streams: STREAMS connections with one request each, PER_SECOND opened per second; tokens are counted during STEADY
 * seconds, beginning SETTLE seconds after the last was opened. TIMEOUT (seconds) bounds the whole.
 * An answer counts when its status is 200, its framing is complete and END, if given, stands near its end.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "response.h"

enum { EVENTS = 1024, READ_SIZE = 262144, RETRY_US = 10000 };
enum error { STATUS, CONNECT, RESET, SHORT, TIMEOUT, ERRORS };
static const char *const ERROR_NAMES[ERRORS] = {"status", "connect", "reset", "short", "timeout"};

struct conn {
    int fd; /* -1: not open */
    bool connected, waits_for_room, over;
    size_t sent;
    int64_t began, first, last, gap; /* microseconds; first and last token */
    long tokens;
    struct response response;
};

/* ---- a histogram: 128 buckets per power of two, so 0.8 % apart ---------------------------------------------------- */

enum { FINE = 128, BUCKETS = 64 * FINE };

struct histogram {
    long count;
    int64_t most;
    long buckets[BUCKETS];
};

static void histogram_add(struct histogram *h, int64_t value)
{
    uint64_t v = value < 0 ? 0 : value;
    int shift = v < FINE ? 0 : 63 - __builtin_clzll(v) - 7 + 1;
    h->buckets[shift * FINE + (shift ? (v >> (shift - 1)) - FINE : v)]++;
    h->count++;
    if (value > h->most)
        h->most = value;
}

static int64_t histogram_at(const struct histogram *h, double share)
{
    long rank = (long)(share * (h->count - 1)), seen = 0;
    for (int i = 0; i < BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen > rank) {
            int shift = i / FINE;
            return shift ? (int64_t)(i % FINE + FINE) << (shift - 1) : i;
        }
    }
    return 0;
}

/* ---- what is measured ------------------------------------------------------------------------------------------- */

static bool streaming;
static struct conn *conns;
static int many, epoll;
static const char *request;
static size_t request_size;
static struct sockaddr_storage target;
static socklen_t target_size;

static int64_t begin, count_from, count_until;
static struct histogram latency, first_token, gaps;
static long done, errors[ERRORS], tokens;
static int opened, over;

static bool counting(int64_t now)
{
    return now >= count_from && now < count_until;
}

static void stream_over(struct conn *conn)
{
    conn->over = true;
    over++;
    if (!conn->tokens)
        return;
    histogram_add(&first_token, conn->first - conn->began);
    histogram_add(&gaps, conn->gap);
}

/* ---- connections ------------------------------------------------------------------------------------------------ */

static void hang_up(struct conn *conn)
{
    if (conn->fd >= 0)
        close(conn->fd);
    conn->fd = -1;
}

static void fail(struct conn *conn, enum error error, int64_t now)
{
    if (streaming || counting(now))
        errors[error]++;
    hang_up(conn);
    if (streaming)
        stream_over(conn);
}

static void watch(struct conn *conn, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = conn};
    epoll_ctl(epoll, operation, conn->fd, &event);
}

static void open_conn(struct conn *conn)
{
    int one = 1;
    int64_t now = now_us();
    if (!conn->began || !streaming)
        conn->began = now;
    conn->connected = false;
    conn->sent = 0;
    conn->fd = socket(target.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (target.ss_family == AF_INET)
        setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (conn->fd >= 0 && (!connect(conn->fd, (struct sockaddr *)&target, target_size) || errno == EINPROGRESS)) {
        conn->waits_for_room = true;
        watch(conn, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
    } else if (conn->fd >= 0 && errno == EAGAIN)
        hang_up(conn); /* a Unix socket whose backlog is full: try again a little later */
    else
        fail(conn, CONNECT, now);
}

static bool send_request(struct conn *conn)
{
    while (conn->sent < request_size) {
        ssize_t wrote = write(conn->fd, request + conn->sent, request_size - conn->sent);
        if (wrote < 0 && errno != EAGAIN)
            return false;
        if (wrote < 0)
            break;
        conn->sent += wrote;
    }
    bool waits = conn->sent < request_size;
    if (waits != conn->waits_for_room)
        watch(conn, EPOLL_CTL_MOD, waits ? EPOLLIN | EPOLLOUT : EPOLLIN);
    conn->waits_for_room = waits;
    return true;
}

static bool begin_request(struct conn *conn, int64_t now)
{
    if (!streaming)
        conn->began = now;
    conn->sent = 0;
    response_begin(&conn->response);
    return send_request(conn);
}

static void on_room(struct conn *conn, int64_t now)
{
    int problem = 0;
    socklen_t size = sizeof problem;
    if (!conn->connected) {
        getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &problem, &size);
        if (problem)
            return fail(conn, CONNECT, now);
        conn->connected = true;
    }
    if (conn->sent ? !send_request(conn) : !begin_request(conn, now))
        fail(conn, RESET, now);
}

/* ---- answers ---------------------------------------------------------------------------------------------------- */

static void note_tokens(struct conn *conn, int64_t now)
{
    long more = conn->response.lines - conn->tokens;
    if (more <= 0)
        return;
    if (!conn->tokens)
        conn->first = now;
    else if (now - conn->last > conn->gap)
        conn->gap = now - conn->last;
    conn->last = now;
    conn->tokens += more;
    if (counting(now))
        tokens += more;
}

static void on_complete(struct conn *conn, int64_t now)
{
    const struct response *response = &conn->response;
    bool good = response->status == 200 && response_ended(response), closes = response->closes;
    if (streaming && good)
        done++;
    if (!streaming && good && counting(now)) {
        done++;
        histogram_add(&latency, now - conn->began);
    }
    if (!good && (streaming || counting(now)))
        errors[response->status == 200 ? SHORT : STATUS]++;
    if (streaming || closes || conn->sent < request_size) {
        hang_up(conn);
        if (streaming)
            stream_over(conn);
        else
            open_conn(conn);
    } else if (!begin_request(conn, now))
        fail(conn, RESET, now);
}

static void on_data(struct conn *conn, int64_t now)
{
    static char data[READ_SIZE];
    ssize_t got = read(conn->fd, data, sizeof data);
    struct response *response = &conn->response;
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0)
        return fail(conn, response->state == IN_HEAD ? RESET : SHORT, now);
    size_t used = response_take(response, data, got);
    if (streaming && response->status == 200)
        note_tokens(conn, now);
    if (response->state == MALFORMED || used < (size_t)got)
        fail(conn, SHORT, now);
    else if (response->state == COMPLETE)
        on_complete(conn, now);
}

static void on_event(struct conn *conn, uint32_t events, int64_t now)
{
    if (conn->fd >= 0 && (events & EPOLLOUT || !conn->connected))
        on_room(conn, now);
    if (conn->fd >= 0 && conn->connected && events & ~EPOLLOUT)
        on_data(conn, now);
}

static void poll_once(int timeout_ms)
{
    static struct epoll_event events[EVENTS];
    int count = epoll_wait(epoll, events, EVENTS, timeout_ms);
    int64_t now = now_us();
    for (int i = 0; i < count; i++) {
        on_event(events[i].data.ptr, events[i].events, now);
        if (!streaming || i % 16 == 15)
            now = now_us();
    }
}

static void reopen(void)
{
    static int64_t next;
    int64_t now = now_us();
    if (now < next)
        return;
    next = now + RETRY_US;
    for (int i = 0; i < opened; i++)
        if (conns[i].fd < 0 && !conns[i].over)
            open_conn(&conns[i]);
}

/* ---- the two modes ---------------------------------------------------------------------------------------------- */

static void print_errors(void)
{
    printf("\"errors\":{");
    for (int i = 0; i < ERRORS; i++)
        printf("%s\"%s\":%ld", i ? "," : "", ERROR_NAMES[i], errors[i]);
    printf("}}\n");
}

static void print_times(const char *name, const struct histogram *h)
{
    printf("\"%s\":{\"p50\":%ld,\"p90\":%ld,\"p99\":%ld,\"max\":%ld},", name, (long)histogram_at(h, 0.5),
           (long)histogram_at(h, 0.9), (long)histogram_at(h, 0.99), (long)h->most);
}

static void run_closed(double warm_up, double seconds)
{
    count_from = begin + (int64_t)(warm_up * 1e6);
    count_until = count_from + (int64_t)(seconds * 1e6);
    for (opened = 0; opened < many; opened++)
        open_conn(&conns[opened]);
    while (now_us() < count_until) {
        poll_once(10);
        reopen();
    }
    printf("{\"mode\":\"closed\",\"connections\":%d,\"seconds\":%.3f,\"requests\":%ld,\"rate\":%.2f,", many, seconds, done,
           done / seconds);
    print_times("latency_us", &latency);
    print_errors();
}

static void run_streams(double per_second, double settle, double steady, double timeout)
{
    int64_t end = begin + (int64_t)(timeout * 1e6);
    count_from = begin + (int64_t)((many / per_second + settle) * 1e6);
    count_until = count_from + (int64_t)(steady * 1e6);
    while (over < many && now_us() < end) {
        while (opened < many && (now_us() - begin) * per_second / 1e6 >= opened)
            open_conn(&conns[opened++]);
        poll_once(1);
        reopen();
    }
    for (int i = 0; i < many; i++)
        if (!conns[i].over)
            fail(&conns[i], TIMEOUT, end);
    printf("{\"mode\":\"streams\",\"streams\":%d,\"steady_seconds\":%.3f,\"completed\":%ld,\"tokens\":%ld,\"rate\":%.2f,",
           many, steady, done, tokens, tokens / steady);
    print_times("first_token_us", &first_token);
    print_times("gap_us", &gaps);
    print_errors();
}

/* ---- the command line ------------------------------------------------------------------------------------------- */

static int usage(void)
{
    fputs("usage: load closed TARGET REQUEST CONNECTIONS SECONDS [-w WARM_UP] [-e END]\n"
          "       load streams TARGET REQUEST STREAMS PER_SECOND STEADY [-s SETTLE] [-t TIMEOUT] [-e END]\n",
          stderr);
    return 2;
}

static bool read_target(char *text)
{
    struct sockaddr_un *local = (struct sockaddr_un *)&target;
    struct sockaddr_in *inet = (struct sockaddr_in *)&target;
    char *colon = strrchr(text, ':');
    if (!strncmp(text, "unix:", 5) && strlen(text + 5) < sizeof local->sun_path) {
        local->sun_family = AF_UNIX;
        strcpy(local->sun_path, text + 5);
        target_size = sizeof *local;
        return true;
    }
    if (!colon)
        return false;
    *colon = 0;
    inet->sin_family = AF_INET;
    inet->sin_port = htons(atoi(colon + 1));
    target_size = sizeof *inet;
    return inet_pton(AF_INET, text, &inet->sin_addr) == 1;
}

static bool read_request(const char *path)
{
    struct stat about;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &about))
        return false;
    char *text = malloc(about.st_size + 1);
    request = text;
    while (request_size < (size_t)about.st_size) {
        ssize_t got = read(fd, text + request_size, about.st_size - request_size);
        if (got <= 0)
            return false;
        request_size += got;
    }
    close(fd);
    return true;
}

static void prepare(void)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    epoll = epoll_create1(0);
    conns = calloc(many, sizeof *conns);
    for (int i = 0; i < many; i++)
        conns[i].fd = -1;
    begin = now_us();
}

int main(int count, char **words)
{
    int option;
    double warm_up = 0, settle = 0, timeout = 60;
    while ((option = getopt(count, words, "w:s:t:e:")) != -1) {
        switch (option) {
        case 'w': warm_up = atof(optarg); break;
        case 's': settle = atof(optarg); break;
        case 't': timeout = atof(optarg); break;
        case 'e': final_words = optarg, final_size = strlen(optarg); break;
        default: return usage();
        }
    }
    char **word = words + optind;
    bool closed = count > optind && !strcmp(*word, "closed");
    streaming = count > optind && !strcmp(*word, "streams");
    if (count - optind != (streaming ? 6 : 5) || !(closed || streaming) || final_size > NEAR_END)
        return usage();
    if (!read_target(word[1]) || !read_request(word[2])) {
        fprintf(stderr, "load: bad target or request: %s %s\n", word[1], word[2]);
        return 2;
    }
    many = atoi(word[3]);
    prepare();
    if (streaming)
        run_streams(atof(word[4]), settle, atof(word[5]), timeout);
    else
        run_closed(warm_up, atof(word[4]));
}
