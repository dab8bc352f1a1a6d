/* Clients that ask as fast as they are answered: CONNECTIONS of them, SECONDS long, each sending the bytes of FILE.
 * Prints one JSON line: answers, failures, and in microseconds the whole answer's p50 and p99, the first body
 * byte's p50 and p99, and the gaps between a stream's pieces (p50, p99, longest). One thread, epoll.
 *
 *     _load PORT FILE CONNECTIONS SECONDS
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    int fd, is_chunked, has_first;
    size_t sent;
    char head[16384];
    size_t head_size, body_left;
    int has_head;
    char tail[5];
    double begun, last;
} Client;

typedef struct { double *at; size_t size, room; } Series;

static Series answers, firsts, gaps;
static char *request;
static size_t request_size;
static int port, poll_fd;
static long failures;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static void add(Series *s, double value) {
    if (s->size == s->room) {
        s->room = s->room ? s->room * 2 : 65536;
        s->at = realloc(s->at, s->room * sizeof(double));
    }
    s->at[s->size++] = value;
}

static int compare(const void *a, const void *b) {
    double x = *(double *)a, y = *(double *)b;
    return x < y ? -1 : x > y;
}

static double point(Series *s, double share) {
    return s->size ? s->at[(size_t)(share * (s->size - 1))] : 0;
}

static void push(Client *c) {
    while (c->sent < request_size) {
        ssize_t n = write(c->fd, request + c->sent, request_size - c->sent);
        if (n < 0) break;
        c->sent += n;
    }
    struct epoll_event event = {.events = EPOLLIN | (c->sent < request_size ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poll_fd, EPOLL_CTL_MOD, c->fd, &event);
}

static void ask(Client *c) {
    c->sent = c->head_size = c->body_left = 0;
    c->has_head = c->is_chunked = c->has_first = 0;
    memset(c->tail, 0, 5);
    c->begun = c->last = now();
    size_t n = 0;
    ssize_t wrote = write(c->fd, request, request_size);
    if (wrote > 0) n = wrote;
    c->sent = n;
    if (n < request_size) push(c);
}

static void join(Client *c) {
    if (c->fd > 0) close(c->fd);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    int one = 1;
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(c->fd, (void *)&there, sizeof there)) { perror("connect"); exit(1); }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->fd, &event);
    ask(c);
}

static int take(Client *c, const char *data, size_t size) { /* 1 = the answer is whole */
    double at = now();
    if (!c->has_first) add(&firsts, at - c->begun);
    else if (c->is_chunked) add(&gaps, at - c->last);
    c->has_first = 1;
    c->last = at;
    if (!c->is_chunked) {
        c->body_left -= size < c->body_left ? size : c->body_left;
        return c->body_left == 0;
    }
    if (size >= 5) memcpy(c->tail, data + size - 5, 5);
    else {
        memmove(c->tail, c->tail + size, 5 - size);
        memcpy(c->tail + 5 - size, data, size);
    }
    return !memcmp(c->tail, "0\r\n\r\n", 5);
}

static void hear(Client *c) {
    static char data[1 << 18];
    ssize_t n = read(c->fd, data, sizeof data);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) { failures++; join(c); return; }
    char *body = data;
    if (!c->has_head) {
        if (c->head_size + n >= sizeof c->head) n = sizeof c->head - c->head_size - 1;
        memcpy(c->head + c->head_size, data, n);
        c->head_size += n;
        c->head[c->head_size] = 0;
        char *end = strstr(c->head, "\r\n\r\n");
        if (!end) return;
        c->has_head = 1;
        if (strncmp(c->head, "HTTP/1.1 200", 12)) {
            if (!failures) fprintf(stderr, "%.600s\n", c->head);
            failures++;
        }
        c->is_chunked = strcasestr(c->head, "transfer-encoding: chunked") != NULL;
        char *length = strcasestr(c->head, "content-length:");
        c->body_left = length && length < end ? strtoul(length + 15, NULL, 10) : 0;
        body = end + 4;
        n = c->head + c->head_size - body;
        if (n == 0) {
            if (!c->is_chunked && !c->body_left) { add(&answers, now() - c->begun); ask(c); }
            return;
        }
    }
    if (take(c, body, n)) {
        add(&answers, now() - c->begun);
        ask(c);
    }
}

int main(int argc, char **argv) {
    (void)argc;
    port = atoi(argv[1]);
    FILE *file = fopen(argv[2], "rb");
    fseek(file, 0, SEEK_END);
    request_size = ftell(file);
    rewind(file);
    request = malloc(request_size);
    if (fread(request, 1, request_size, file) != request_size) return 1;
    int count = atoi(argv[3]);
    double seconds = atof(argv[4]);
    poll_fd = epoll_create1(0);
    Client *clients = calloc(count, sizeof(Client));
    double begun = now();
    for (int i = 0; i < count; i++) join(&clients[i]);
    struct epoll_event ready[256];
    while (now() - begun < seconds * 1e6) {
        int n = epoll_wait(poll_fd, ready, 256, 10);
        for (int i = 0; i < n; i++) {
            Client *c = ready[i].data.ptr;
            if (ready[i].events & EPOLLOUT) push(c);
            if (ready[i].events & ~EPOLLOUT) hear(c);
        }
    }
    double took = (now() - begun) / 1e6;
    qsort(answers.at, answers.size, sizeof(double), compare);
    qsort(firsts.at, firsts.size, sizeof(double), compare);
    qsort(gaps.at, gaps.size, sizeof(double), compare);
    printf("{\"answers\": %zu, \"failures\": %ld, \"per_s\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, "
           "\"first_p50_us\": %.1f, \"first_p99_us\": %.1f, \"gap_p50_us\": %.1f, \"gap_p99_us\": %.1f, "
           "\"gap_max_us\": %.1f, \"pieces\": %zu}\n",
           answers.size, failures, answers.size / took, point(&answers, .5), point(&answers, .99),
           point(&firsts, .5), point(&firsts, .99), point(&gaps, .5), point(&gaps, .99), point(&gaps, 1),
           gaps.size + firsts.size);
    return 0;
}
