/* An upstream that costs next to nothing: answers every POST with a whole JSON object or an event stream.
 *
 *   _router_upstream PORT
 *
 * One thread, epoll. What it does is asked for in the first 8 KB of the body, as fields that engines pass over:
 * "stream": true, "bench_chunks": N (64), "bench_gap_us": N (0 = as fast as they are taken), "bench_bytes": N
 * (of the whole answer, 500, or of a chunk, 160), "bench_delay_us": N (before the answer).
 * GET answers what valets ask of engines; GET /bench/counters what has gone over the sockets.
 * Ends with SIGTERM. Every chunk is a write() of its own, as engines do it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_MAX = 32768, PREFIX_MAX = 8192, TURN_CHUNKS = 16, CONNECTIONS_MAX = 4096 };
enum stage { IN_HEAD, IN_BODY, DELAYED, ANSWERING };

struct connection {
    int fd;
    enum stage stage;
    char head[HEAD_MAX + 1];
    size_t head_bytes;
    char prefix[PREFIX_MAX + 1];
    size_t prefix_bytes;
    long long body_left;
    char *own;            /* this request's buffer: the whole answer, or one chunk */
    size_t own_bytes;
    const char *out;      /* what is being written */
    size_t out_left;
    int is_stream, is_ended, wants_out;
    long chunks_left;
    int64_t gap_ns, due_ns;   /* due_ns: 0 = nothing is due at a time */
};

static int epoll_fd, timer_fd, listen_fd;
static struct connection *timed[CONNECTIONS_MAX];
static int timed_count;
static char buffer[1 << 18];
static unsigned long long requests, body_bytes, stream_bytes, open_streams;
static const char STREAM_HEAD[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                                  "transfer-encoding: chunked\r\n\r\n";
static const char STREAM_END[] = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void watch(struct connection *c, int wants_out) {
    if (c->wants_out == wants_out) return;
    c->wants_out = wants_out;
    struct epoll_event e = {.events = wants_out ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
}

static void forget_time(struct connection *c) {
    c->due_ns = 0;
    for (int i = 0; i < timed_count; i++)
        if (timed[i] == c) { timed[i] = timed[--timed_count]; return; }
}

static void set_time(struct connection *c, int64_t due_ns) {
    if (c->due_ns == 0) {
        if (timed_count == CONNECTIONS_MAX) abort();
        timed[timed_count++] = c;
    }
    c->due_ns = due_ns;
}

static void set_timer(void) {
    int64_t first = 0;
    for (int i = 0; i < timed_count; i++)
        if (first == 0 || timed[i]->due_ns < first) first = timed[i]->due_ns;
    static int64_t set_to;
    if (first == set_to && first > now_ns()) return;
    set_to = first;
    struct itimerspec at = {.it_value = {first / 1000000000LL, first % 1000000000LL}};
    timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

static void drop(struct connection *c) {
    if (c->stage == ANSWERING && c->is_stream) open_streams--;
    forget_time(c);
    close(c->fd);
    free(c->own);
    free(c);
}

static long number(const char *text, const char *name, long otherwise) {
    const char *at = strstr(text, name);
    if (at == NULL) return otherwise;
    at += strlen(name);
    while (*at == '"' || *at == ':' || *at == ' ') at++;
    return strtol(at, NULL, 10);
}

static int says_stream(const char *text) {
    const char *at = strstr(text, "\"stream\"");
    if (at == NULL) return 0;
    at += 8;
    while (*at == ':' || *at == ' ') at++;
    return strncmp(at, "true", 4) == 0;
}

static void make_whole(struct connection *c, const char *before, const char *after, long wanted) {
    size_t fixed = strlen(before) + strlen(after);
    size_t size = wanted > (long)fixed ? (size_t)wanted : fixed;
    c->own = malloc(size + 256);
    int head = sprintf(c->own, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n", size);
    char *at = stpcpy(c->own + head, before);
    memset(at, 'x', size - fixed);
    strcpy(at + size - fixed, after);
    c->own_bytes = head + size;
}

static void make_chunk(struct connection *c, long wanted) {
    static const char before[] = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\","
                                 "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"";
    static const char after[] = "\"},\"finish_reason\":null}]}\n\n";
    size_t fixed = sizeof before + sizeof after - 2;
    size_t size = wanted > (long)fixed ? (size_t)wanted : fixed;
    c->own = malloc(size + 64);
    int head = sprintf(c->own, "%zx\r\n", size);
    char *at = stpcpy(c->own + head, before);
    memset(at, 'x', size - fixed);
    strcpy(at + size - fixed, after);
    memcpy(c->own + head + size, "\r\n", 2);
    c->own_bytes = head + size + 2;
}

static void answer(struct connection *c);

static void next_request(struct connection *c) {
    free(c->own);
    c->own = NULL;
    if (c->is_stream) open_streams--;
    c->stage = IN_HEAD;
    c->head_bytes = c->prefix_bytes = 0;
    c->is_stream = 0;
    watch(c, 0);
}

/* Writes what there is to write; 0 = the connection is gone. */
static int go_on(struct connection *c) {
    for (int turn = 0;;) {
        while (c->out_left > 0) {
            ssize_t wrote = send(c->fd, c->out, c->out_left, MSG_NOSIGNAL);
            if (wrote < 0) {
                if (errno != EAGAIN) { drop(c); return 0; }
                watch(c, 1);
                return 1;
            }
            if (c->is_stream) stream_bytes += wrote;
            c->out += wrote;
            c->out_left -= wrote;
        }
        if (!c->is_stream || c->is_ended) { next_request(c); return 1; }
        if (c->chunks_left == 0) {
            c->is_ended = 1;
            c->out = STREAM_END;
            c->out_left = sizeof STREAM_END - 1;
            continue;
        }
        if (c->gap_ns > 0) {
            int64_t now = now_ns();
            if (c->due_ns == 0) set_time(c, now);
            if (c->due_ns > now) { watch(c, 0); return 1; }
            set_time(c, c->due_ns + c->gap_ns > now ? c->due_ns + c->gap_ns : now + c->gap_ns);
        } else if (turn++ == TURN_CHUNKS) { watch(c, 1); return 1; } /* others' turn */
        c->chunks_left--;
        if (c->chunks_left == 0) forget_time(c);
        c->out = c->own;
        c->out_left = c->own_bytes;
    }
}

static void answer_get(struct connection *c) {
    char counters[256];
    const char *body = "{\"version\":\"0.99.0\",\"status\":\"ok\"}";
    if (strstr(c->head, "/v1/models"))
        body = "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\",\"created\":1,\"owned_by\":\"bench\"}]}";
    else if (strstr(c->head, "/api/tags") || strstr(c->head, "/api/ps"))
        body = "{\"models\":[{\"name\":\"m:latest\",\"model\":\"m:latest\",\"size\":1000000,\"size_vram\":0,"
               "\"digest\":\"d\",\"context_length\":4096,\"expires_at\":\"2318-01-01T00:00:00Z\",\"details\":{}}]}";
    else if (strstr(c->head, "/bench/counters")) {
        sprintf(counters, "{\"requests\":%llu,\"body_bytes\":%llu,\"stream_bytes\":%llu,\"open_streams\":%llu}",
                requests, body_bytes, stream_bytes, open_streams);
        body = counters;
    }
    make_whole(c, body, "", 0);
}

static void answer(struct connection *c) {
    requests++;
    c->prefix[c->prefix_bytes] = 0;
    c->is_stream = c->is_ended = 0;
    if (strncmp(c->head, "POST", 4) != 0) answer_get(c);
    else if (says_stream(c->prefix)) {
        c->is_stream = 1;
        open_streams++;
        c->chunks_left = number(c->prefix, "bench_chunks", 64);
        c->gap_ns = number(c->prefix, "bench_gap_us", 0) * 1000LL;
        make_chunk(c, number(c->prefix, "bench_bytes", 160));
    } else
        make_whole(c, "{\"id\":\"c\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,"
                   "\"message\":{\"role\":\"assistant\",\"content\":\"", "\"},\"finish_reason\":\"stop\"}],\"usage\":"
                   "{\"prompt_tokens\":9,\"completion_tokens\":64,\"total_tokens\":73}}",
                   number(c->prefix, "bench_bytes", 500));
    c->stage = ANSWERING;
    c->out = c->is_stream ? STREAM_HEAD : c->own;
    c->out_left = c->is_stream ? sizeof STREAM_HEAD - 1 : c->own_bytes;
    go_on(c);
}

static void body_is_whole(struct connection *c) {
    c->prefix[c->prefix_bytes] = 0;
    long delay_us = number(c->prefix, "bench_delay_us", 0);
    if (delay_us > 0) {
        c->stage = DELAYED;
        set_time(c, now_ns() + delay_us * 1000LL);
    } else
        answer(c);
}

static void take_body(struct connection *c, const char *data, size_t size) {
    size_t room = PREFIX_MAX - c->prefix_bytes, kept = size < room ? size : room;
    memcpy(c->prefix + c->prefix_bytes, data, kept);
    c->prefix_bytes += kept;
    c->body_left -= size;
    body_bytes += size;
}

static void take_head(struct connection *c, size_t size) {
    size_t room = HEAD_MAX - c->head_bytes, taken = size < room ? size : room;
    memcpy(c->head + c->head_bytes, buffer, taken);
    c->head_bytes += taken;
    c->head[c->head_bytes] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (end == NULL) {
        if (c->head_bytes == HEAD_MAX) drop(c);
        return;
    }
    end += 4;
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    c->body_left = length != NULL && length < end ? strtoll(length + 17, NULL, 10) : 0;
    size_t rest = c->head + c->head_bytes - end;
    c->stage = IN_BODY;
    take_body(c, end, rest);
    *end = 0;
    if (size > taken) take_body(c, buffer + taken, size - taken);
    if (c->body_left <= 0) body_is_whole(c);
}

static void take(struct connection *c) {
    ssize_t size = recv(c->fd, buffer, sizeof buffer, 0);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) { drop(c); return; }
    if (c->stage == IN_HEAD) take_head(c, size);
    else if (c->stage == IN_BODY) {
        take_body(c, buffer, size);
        if (c->body_left <= 0) body_is_whole(c);
    }
}

static void welcome(void) {
    int fd, on = 1;
    while ((fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct connection *c = calloc(1, sizeof *c);
        c->fd = fd;
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
    }
}

static void due(void) {
    uint64_t expirations;
    if (read(timer_fd, &expirations, sizeof expirations) < 0) return;
    int64_t now = now_ns();
    for (int i = timed_count - 1; i >= 0; i--) {
        if (i >= timed_count || timed[i]->due_ns > now) continue;
        struct connection *c = timed[i];
        if (c->stage == DELAYED) { forget_time(c); answer(c); }
        else if (c->out_left == 0) go_on(c);
        else set_time(c, now + c->gap_ns); /* blocked: the socket's turn comes first */
    }
}

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: %s PORT\n", argv[0]), 2;
    signal(SIGPIPE, SIG_IGN);
    int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listen_fd, (struct sockaddr *)&address, sizeof address) || listen(listen_fd, 1024)) return perror("bind"), 1;
    epoll_fd = epoll_create1(0);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event of_listener = {.events = EPOLLIN, .data.ptr = &listen_fd};
    struct epoll_event of_timer = {.events = EPOLLIN, .data.ptr = &timer_fd};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &of_listener);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &of_timer);
    for (;;) {
        struct epoll_event events[1]; /* one at a time: handling one may free another */
        if (timed_count > 0) set_timer();
        if (epoll_wait(epoll_fd, events, 1, -1) < 1) continue;
        void *what = events[0].data.ptr;
        if (what == &listen_fd) welcome();
        else if (what == &timer_fd) due();
        else {
            struct connection *c = what;
            if (events[0].events & (EPOLLERR | EPOLLHUP)) drop(c);
            else if (events[0].events & EPOLLIN) take(c);
            else if (events[0].events & EPOLLOUT) go_on(c);
        }
    }
}
