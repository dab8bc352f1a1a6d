/* A load generator: the same request over and over on keep-alive connections, each answer timed.
 *
 *   _router_load PORT BODY_FILE CONNECTIONS SECONDS MAX_COUNT KEY WARM_UP SLOW_BYTES_S
 *
 * POSTs the file to /v1/chat/completions on 127.0.0.1 and prints one JSON object; times in µs. MAX_COUNT 0 = as many as fit
 * into SECONDS; KEY "-" = none; the first WARM_UP answers are not counted. SLOW_BYTES_S > 0: every connection asks once
 * and reads so many bytes a second through a small window.
 * latency: first byte written to last byte read. first: to the first byte of the answer's body. gap: between two
 * reads of a streamed body. chunks: events of it (ends of "\n\n"). One thread, epoll.
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
#include <time.h>
#include <unistd.h>

enum { HEAD_MAX = 16384, SLOW_WINDOW_BYTES = 16384, SLOW_TURN_MS = 50, ERRORS_MAX = 1000 };
enum framing { IN_SIZE, IN_DATA, AFTER_DATA, IN_TRAILER };

struct series { float *values; size_t count, room; };

struct connection {
    int fd, status, has_head, has_body, is_chunked, is_waiting, is_last_newline, keeps, wants_out;
    size_t sent, head_bytes;
    long long left;           /* of the body, or of the chunk; -1 = until the connection ends */
    enum framing framing;
    long long size;           /* of a chunk, while its size is read */
    int line_bytes, has_extension;
    int64_t begin_ns, read_ns;
    char head[HEAD_MAX + 1];
};

static struct series latency, first, gap;
static int port, epoll_fd, warm_up;
static long slow_bytes_s;
static char *request;
static size_t request_bytes;
static unsigned long long answers, errors, chunks, body_bytes, reconnects;
static long max_count, begun;
static int64_t start_ns, end_ns, counted_from_ns;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void add(struct series *s, int64_t ns) {
    if (answers < (unsigned long long)warm_up) return;
    if (s->count == s->room) s->values = realloc(s->values, (s->room = s->room ? s->room * 2 : 4096) * sizeof *s->values);
    s->values[s->count++] = ns / 1000.0f;
}

static void fail(const char *why, const char *text) {
    if (errors == 0) fprintf(stderr, "%s: %.400s\n", why, text);
    if (++errors >= ERRORS_MAX) { fprintf(stderr, "too many errors\n"); exit(1); }
}

static void want_out(struct connection *c, int wants) {
    if (c->wants_out == wants) return;
    c->wants_out = wants;
    struct epoll_event e = {.events = wants ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
}

static void dial(struct connection *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1, window = SLOW_WINDOW_BYTES;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (slow_bytes_s > 0) setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &window, sizeof window);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) { perror("connect"); exit(1); }
    c->wants_out = 0;
    struct epoll_event e = {.events = slow_bytes_s > 0 ? 0 : EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e);
}

static int go_on_sending(struct connection *c) {
    while (c->sent < request_bytes) {
        ssize_t wrote = send(c->fd, request + c->sent, request_bytes - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (wrote < 0) {
            if (errno == EAGAIN) { want_out(c, 1); return 1; }
            return 0; /* what is the matter is told by reading */
        }
        c->sent += wrote;
    }
    want_out(c, 0);
    return 1;
}

static void begin(struct connection *c) {
    c->is_waiting = 0;
    if (max_count > 0 && begun >= max_count) return;
    if (now_ns() >= end_ns) return;
    begun++;
    c->is_waiting = 1;
    c->status = c->has_head = c->has_body = c->is_chunked = c->is_last_newline = 0;
    c->sent = c->head_bytes = 0;
    c->framing = IN_SIZE;
    c->size = c->line_bytes = c->has_extension = 0;
    c->read_ns = 0;
    c->begin_ns = now_ns();
    go_on_sending(c);
}

static void again(struct connection *c) {
    close(c->fd);
    reconnects++;
    dial(c);
    begin(c);
}

static void is_over(struct connection *c, int64_t at_ns) {
    if (c->status != 200) fail("answer", c->head);
    else { add(&latency, at_ns - c->begin_ns); answers++; }
    if (c->status == 200 && answers == (unsigned long long)warm_up) { counted_from_ns = at_ns; chunks = body_bytes = 0; }
    if (c->keeps) begin(c);
    else again(c);
}

static void see(struct connection *c, const char *data, size_t size, int64_t at_ns) {
    if (size == 0) return;
    if (!c->has_body) { c->has_body = 1; add(&first, at_ns - c->begin_ns); }
    else if (c->is_chunked && c->read_ns != at_ns) add(&gap, at_ns - c->read_ns);
    c->read_ns = at_ns;
    body_bytes += size;
    for (size_t i = 0; i < size; i++) {
        if (data[i] == '\n' && c->is_last_newline) chunks++;
        c->is_last_newline = data[i] == '\n' && !c->is_last_newline;
    }
}

/* 1 = the answer is over */
static int feed_chunked(struct connection *c, const char *data, size_t size, int64_t at_ns) {
    for (size_t i = 0; i < size;) {
        if (c->framing == IN_DATA) {
            size_t part = size - i < (size_t)c->left ? size - i : (size_t)c->left;
            see(c, data + i, part, at_ns);
            c->left -= part;
            i += part;
            if (c->left == 0) c->framing = AFTER_DATA;
            continue;
        }
        char byte = data[i++];
        if (c->framing == AFTER_DATA) { if (byte == '\n') c->framing = IN_SIZE; continue; }
        if (byte == '\n') {
            if (c->framing == IN_TRAILER) {
                if (c->line_bytes == 0) return 1;
            } else if (c->size > 0) { c->left = c->size; c->framing = IN_DATA; }
            else c->framing = IN_TRAILER;
            c->size = c->line_bytes = c->has_extension = 0;
        } else if (byte != '\r') {
            c->line_bytes++;
            if (byte == ';') c->has_extension = 1;
            if (c->framing == IN_SIZE && !c->has_extension)
                c->size = c->size * 16 + (byte <= '9' ? byte - '0' : (byte | 32) - 'a' + 10);
        }
    }
    return 0;
}

static int feed_body(struct connection *c, const char *data, size_t size, int64_t at_ns) {
    if (c->is_chunked) return feed_chunked(c, data, size, at_ns);
    see(c, data, size, at_ns);
    if (c->left >= 0) c->left -= size;
    return c->left == 0;
}

static void feed(struct connection *c, const char *data, size_t size, int64_t at_ns) {
    while (!c->has_head) {
        size_t room = HEAD_MAX - c->head_bytes, taken = size < room ? size : room, before = c->head_bytes;
        memcpy(c->head + before, data, taken);
        c->head[c->head_bytes = before + taken] = 0;
        char *end = strstr(c->head, "\r\n\r\n");
        if (end == NULL) return;
        end += 4;
        c->status = atoi(c->head + 9);
        size_t used = end - c->head - before;
        data += used;
        size -= used;
        if (c->status == 100) { c->head_bytes = 0; continue; }
        char kept = *end;
        *end = 0;
        char *length = strcasestr(c->head, "\r\ncontent-length:");
        c->is_chunked = strcasestr(c->head, "\r\ntransfer-encoding: chunked") != NULL;
        c->keeps = strcasestr(c->head, "\r\nconnection: close") == NULL;
        c->left = length != NULL ? strtoll(length + 17, NULL, 10) : -1;
        *end = kept;
        c->has_head = 1;
        if (c->left == 0 && !c->is_chunked) { is_over(c, at_ns); return; }
    }
    if (size > 0 && feed_body(c, data, size, at_ns)) is_over(c, at_ns);
}

static void take(struct connection *c) {
    static char buffer[1 << 16];
    ssize_t size = recv(c->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN) return;
    if (size > 0) { if (c->is_waiting) feed(c, buffer, size, now_ns()); return; }
    if (c->is_waiting && c->has_head && c->left < 0 && !c->is_chunked) { c->keeps = 0; is_over(c, now_ns()); return; }
    if (c->is_waiting) fail("connection ended", c->head_bytes > 0 ? c->head : "before an answer");
    again(c);
}

static int is_busy(struct connection *all, int count) {
    for (int i = 0; i < count; i++)
        if (all[i].is_waiting) return 1;
    return 0;
}

static void run(struct connection *all, int count) {
    /* what is on its way at the end is waited for, but not for long */
    while (is_busy(all, count) && now_ns() < end_ns + 10000000000LL) {
        struct epoll_event events[64];
        int found = epoll_wait(epoll_fd, events, 64, 100);
        for (int i = 0; i < found; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) go_on_sending(c);
            if (events[i].events & ~EPOLLOUT) take(c);
        }
    }
    if (is_busy(all, count)) fail("timeout", "some answers did not come");
}

static void run_slowly(struct connection *all, int count) {
    static char buffer[1 << 16];
    size_t turn_bytes = slow_bytes_s * SLOW_TURN_MS / 1000;
    while (now_ns() < end_ns) {
        usleep(SLOW_TURN_MS * 1000);
        for (int i = 0; i < count; i++) {
            ssize_t size = recv(all[i].fd, buffer, turn_bytes < sizeof buffer ? turn_bytes : sizeof buffer, MSG_DONTWAIT);
            if (size > 0) body_bytes += size;
            else if (size == 0) { fail("connection ended", "in the middle of a slow answer"); return; }
        }
    }
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void print_series(const char *name, struct series *s) {
    qsort(s->values, s->count, sizeof *s->values, by_value);
    if (s->count == 0) { printf(",\"%s\":null", name); return; }
    printf(",\"%s\":{\"p50\":%.1f,\"p99\":%.1f,\"max\":%.1f,\"count\":%zu}", name, s->values[s->count / 2],
           s->values[(size_t)((s->count - 1) * 0.99 + 0.5)], s->values[s->count - 1], s->count);
}

static void read_request(const char *path, const char *key) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) { perror(path); exit(1); }
    fseek(file, 0, SEEK_END);
    size_t size = ftell(file);
    rewind(file);
    request = malloc(size + 1024);
    request_bytes = sprintf(request, "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: "
                            "application/json\r\ncontent-length: %zu\r\n", port, size);
    if (strcmp(key, "-") != 0)
        request_bytes += sprintf(request + request_bytes, "authorization: Bearer %.200s\r\n", key);
    request_bytes += sprintf(request + request_bytes, "\r\n");
    if (fread(request + request_bytes, 1, size, file) != size) { perror(path); exit(1); }
    request_bytes += size;
    fclose(file);
}

int main(int argc, char **argv) {
    if (argc != 9) return fprintf(stderr, "usage: see the head of the source\n"), 2;
    signal(SIGPIPE, SIG_IGN);
    port = atoi(argv[1]);
    int count = atoi(argv[3]);
    max_count = atol(argv[5]);
    warm_up = atoi(argv[7]);
    slow_bytes_s = atol(argv[8]);
    read_request(argv[2], argv[6]);
    epoll_fd = epoll_create1(0);
    struct connection *all = calloc(count, sizeof *all);
    start_ns = counted_from_ns = now_ns();
    end_ns = start_ns + (int64_t)(atof(argv[4]) * 1e9);
    for (int i = 0; i < count; i++) { dial(&all[i]); begin(&all[i]); }
    if (slow_bytes_s > 0) run_slowly(all, count);
    else run(all, count);
    double seconds = (now_ns() - counted_from_ns) / 1e9;
    unsigned long long counted = answers > (unsigned long long)warm_up ? answers - warm_up : 0;
    printf("{\"answers\":%llu,\"errors\":%llu,\"reconnects\":%llu,\"seconds\":%.6f,\"per_s\":%.1f,\"chunks\":%llu,"
           "\"body_bytes\":%llu", counted, errors, reconnects, seconds, counted / seconds, chunks, body_bytes);
    print_series("latency", &latency);
    print_series("first", &first);
    print_series("gap", &gap);
    printf("}\n");
    return 0;
}
