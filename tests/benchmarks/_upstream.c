/* An engine that costs nothing: answers each POST with a whole answer of 500 B, or with a stream of 64 events,
 * one each millisecond, when the body says "stream":true. With "flood" in it, events come as fast as they are read,
 * up to 64 MB, and GET /sent tells how many bytes of floods the kernel has taken. One thread, epoll.
 *
 *     _upstream PORT
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST 4096
#define EVENTS 64
#define FLOOD_BYTES (64L << 20)

typedef struct {
    char *data;
    size_t size, room, head, length; /* head: bytes up to and with the empty line, 0 = not whole yet */
    int events_left, is_used;
    long flood_left;
} Connection;

static Connection connections[MOST];
static long long flooded;
static char whole[1024];
static int whole_size;
static char chunk[256];
static int chunk_size;
static char flood[16384];

static const char *HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
static const char *END = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";

static void say(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t n = write(fd, data, size);
        if (n < 0) {
            if (errno == EAGAIN) continue;
            return;
        }
        data += n;
        size -= n;
    }
}

static void prepare(void) {
    char text[400];
    memset(text, 'x', 330);
    text[330] = 0;
    char body[600];
    int n = snprintf(body, sizeof body,
                     "{\"id\":\"a\",\"object\":\"chat.completion\",\"choices\":[{\"index\":0,\"message\":{\"role\":"
                     "\"assistant\",\"content\":\"%s\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":9,"
                     "\"completion_tokens\":64,\"total_tokens\":73}}", text);
    whole_size = snprintf(whole, sizeof whole,
                          "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", n, body);
    char event[200];
    n = snprintf(event, sizeof event,
                 "data: {\"id\":\"a\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":"
                 "{\"content\":\" word\"}}]}\n\n");
    chunk_size = snprintf(chunk, sizeof chunk, "%x\r\n%s\r\n", n, event);
    memset(flood, 'y', sizeof flood);
    n = snprintf(flood, 16, "%x\r\ndata: ", (int)sizeof flood - 8);
    flood[n] = 'y';
    memcpy(flood + sizeof flood - 4, "\n\n\r\n", 4);
}

static void answer(int fd, Connection *c) {
    if (!strncmp(c->data, "GET /sent", 9)) {
        char text[200], body[40];
        int n = snprintf(body, sizeof body, "%lld", flooded);
        n = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", n, body);
        say(fd, text, n);
        return;
    }
    if (!strncmp(c->data, "GET ", 4)) {
        static const char *list = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 48\r\n\r\n"
                                  "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":0}]}";
        say(fd, list, strlen(list));
        return;
    }
    if (memmem(c->data + c->head, c->length, "\"flood\"", 7)) {
        say(fd, HEAD, strlen(HEAD));
        c->flood_left = FLOOD_BYTES;
    } else if (memmem(c->data + c->head, c->length, "\"stream\":true", 13)) {
        say(fd, HEAD, strlen(HEAD));
        say(fd, chunk, chunk_size);
        c->events_left = EVENTS - 1;
    } else {
        say(fd, whole, whole_size);
    }
}

static void forget(int fd, int poll) {
    epoll_ctl(poll, EPOLL_CTL_DEL, fd, NULL);
    close(fd);
    free(connections[fd].data);
    memset(&connections[fd], 0, sizeof(Connection));
}

static void hear(int fd, int poll) {
    Connection *c = &connections[fd];
    for (;;) {
        if (c->room - c->size < 65536) {
            c->room = c->room ? c->room * 2 : 131072;
            c->data = realloc(c->data, c->room);
        }
        ssize_t n = read(fd, c->data + c->size, c->room - c->size - 1);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            forget(fd, poll);
            return;
        }
        if (n < 0) return;
        c->size += n;
        c->data[c->size] = 0;
        if (!c->head) {
            char *end = strstr(c->data, "\r\n\r\n");
            if (!end) continue;
            c->head = end - c->data + 4;
            char *length = strcasestr(c->data, "content-length:");
            c->length = length && length < end ? strtoul(length + 15, NULL, 10) : 0;
        }
        if (c->size >= c->head + c->length) {
            answer(fd, c);
            c->size = c->head = c->length = 0;
            if (c->room > (1 << 20)) {
                free(c->data);
                c->data = NULL;
                c->room = 0;
            }
        }
    }
}

static void go_on(int fd, int poll, int is_tick) {
    Connection *c = &connections[fd];
    if (c->events_left && is_tick) {
        say(fd, chunk, chunk_size);
        if (--c->events_left == 0) say(fd, END, strlen(END));
    }
    while (c->flood_left > 0) {
        size_t at = (FLOOD_BYTES - c->flood_left) % sizeof flood;
        ssize_t n = write(fd, flood + at, sizeof flood - at);
        if (n < 0) {
            if (errno != EAGAIN) c->flood_left = 0;
            return;
        }
        c->flood_left -= n;
        flooded += n;
        if (c->flood_left <= 0) say(fd, END, strlen(END));
    }
    (void)poll;
}

int main(int argc, char **argv) {
    (void)argc;
    prepare();
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&here, sizeof here) || listen(listener, 512)) return 1;
    int poll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, ready[256];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    struct timespec last = {0}, now;
    for (;;) {
        int busy = 0;
        for (int fd = 0; fd < MOST; fd++)
            if (connections[fd].is_used && (connections[fd].events_left || connections[fd].flood_left > 0)) busy = 1;
        int n = epoll_wait(poll, ready, 256, busy ? 1 : 200);
        for (int i = 0; i < n; i++) {
            int fd = ready[i].data.fd;
            if (fd != listener) {
                hear(fd, poll);
                continue;
            }
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                if (fd >= MOST) { close(fd); continue; }
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                connections[fd].is_used = 1;
                struct epoll_event added = {.events = EPOLLIN, .data.fd = fd};
                epoll_ctl(poll, EPOLL_CTL_ADD, fd, &added);
            }
        }
        if (!busy) continue;
        clock_gettime(CLOCK_MONOTONIC, &now);
        int is_tick = (now.tv_sec - last.tv_sec) * 1000000000L + now.tv_nsec - last.tv_nsec >= 1000000L;
        if (is_tick) last = now;
        for (int fd = 0; fd < MOST; fd++)
            if (connections[fd].is_used) go_on(fd, poll, is_tick);
    }
}
