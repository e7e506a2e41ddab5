/* A load generator for the benchmark: keep-alive HTTP/1.1, closed loop, one thread, epoll.
 *
 * usage: load PORT CONNECTIONS SECONDS BODY_FILE [HEADER]...
 *
 * Each connection sends the same POST /v1/chat/completions, reads its whole answer, and sends the next.
 * After SECONDS no request is begun; those under way are finished. Prints one JSON object:
 *   requests, failed (not 200, cut, or a stream without [DONE]), events, seconds, first_error, and in ms the median
 *   and 99th percentile of the latency, of the time to the first byte of the body and of the gap between reads.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
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

enum { HEAD_MAX = 16384, GRACE_S = 30, TAIL = 16 };

typedef enum { IN_HEAD, IN_BODY, IN_CHUNK_SIZE, IN_CHUNK, AFTER_CHUNK, IN_TRAILER, COMPLETE } State;

typedef struct {
    int fd, busy, status, line_length;
    State state;
    long left; /* of the body or of the chunk */
    char head[HEAD_MAX], line[32], tail[TAIL];
    int head_length, tail_length;
    char previous; /* the last byte seen of the body: an event ends with two line feeds */
    uint64_t sent_ns, read_ns;
} Connection;

typedef struct {
    uint32_t *tenths_us;
    size_t length, capacity;
} Samples;

static int port, poller;
static char *request;
static size_t request_length;
static Samples latencies, firsts, gaps;
static unsigned long requests, failed, events;
static char first_error[200];

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void note(Samples *samples, uint64_t ns) {
    if (samples->length == samples->capacity) {
        samples->capacity = samples->capacity ? 2 * samples->capacity : 65536;
        samples->tenths_us = realloc(samples->tenths_us, samples->capacity * sizeof *samples->tenths_us);
        if (!samples->tenths_us)
            exit(1);
    }
    samples->tenths_us[samples->length++] = (uint32_t)(ns / 100);
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double quantile_ms(Samples *samples, double q) {
    if (!samples->length)
        return 0;
    qsort(samples->tenths_us, samples->length, sizeof *samples->tenths_us, ascending);
    return samples->tenths_us[(size_t)(q * (double)(samples->length - 1) + 0.5)] / 10000.0;
}

static void dial(Connection *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int yes = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) {
        perror("load: connect");
        exit(1);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &(struct epoll_event){.events = EPOLLIN, .data.ptr = c});
}

static void ask(Connection *c) {
    c->busy = 1;
    c->state = IN_HEAD;
    c->head_length = c->tail_length = c->line_length = c->status = 0;
    c->previous = 0;
    c->sent_ns = now_ns();
    c->read_ns = 0;
    if (send(c->fd, request, request_length, MSG_NOSIGNAL) != (ssize_t)request_length)
        perror("load: send"); /* the answer, or its absence, is counted where it is read */
}

static void fail(const char *why, const char *detail) {
    if (!failed++)
        snprintf(first_error, sizeof first_error, "%s: %.150s", why, detail);
}

static void finish(Connection *c) {
    int stream = strcasestr(c->head, "text/event-stream") != NULL;
    requests++;
    note(&latencies, now_ns() - c->sent_ns);
    if (c->status != 200)
        fail("status", c->head);
    else if (stream && !memmem(c->tail, (size_t)c->tail_length, "[DONE]", 6))
        fail("stream", "ended without [DONE]");
}

/* Bytes of the body: counts events, keeps the last few bytes. */
static void look_at(Connection *c, const char *data, long length) {
    for (const char *at = data, *end = data + length; (at = memchr(at, '\n', (size_t)(end - at))); at++) {
        char before = at > data ? at[-1] : c->previous;
        events += before == '\n';
        if (at + 1 == end)
            break;
    }
    c->previous = data[length - 1];
    long taken = length < TAIL ? length : TAIL, kept = TAIL - taken;
    if (kept > c->tail_length)
        kept = c->tail_length;
    memmove(c->tail, c->tail + c->tail_length - kept, (size_t)kept);
    memcpy(c->tail + kept, data + length - taken, (size_t)taken);
    c->tail_length = (int)(kept + taken);
}

static const char *read_head(Connection *c, const char *at, const char *end) {
    while (at < end && c->head_length < HEAD_MAX - 1) {
        c->head[c->head_length++] = *at++;
        if (c->head_length < 4 || memcmp(c->head + c->head_length - 4, "\r\n\r\n", 4))
            continue;
        c->head[c->head_length] = 0;
        c->status = atoi(c->head + strlen("HTTP/1.1 "));
        char *length = strcasestr(c->head, "\r\ncontent-length:");
        c->left = length ? atol(length + strlen("\r\ncontent-length:")) : 0;
        c->state = strcasestr(c->head, "\r\ntransfer-encoding: chunked") ? IN_CHUNK_SIZE : c->left ? IN_BODY : COMPLETE;
        break;
    }
    return at;
}

/* Reads a line of the chunk framing. 1 when it is whole. */
static int read_line(Connection *c, const char **at, const char *end) {
    while (*at < end) {
        char byte = *(*at)++;
        if (byte == '\n') {
            c->line[c->line_length] = 0;
            return 1;
        }
        if (byte != '\r' && c->line_length < (int)sizeof c->line - 1)
            c->line[c->line_length++] = byte;
    }
    return 0;
}

static void take(Connection *c, const char *at, const char *end) {
    while (at < end && c->state != COMPLETE) {
        long n = end - at < c->left ? end - at : c->left;
        switch (c->state) {
        case IN_HEAD:
            at = read_head(c, at, end);
            break;
        case IN_BODY:
        case IN_CHUNK:
            look_at(c, at, n);
            at += n;
            if (!(c->left -= n))
                c->state = c->state == IN_BODY ? COMPLETE : AFTER_CHUNK;
            break;
        case AFTER_CHUNK:
            if (read_line(c, &at, end)) {
                c->state = IN_CHUNK_SIZE;
                c->line_length = 0;
            }
            break;
        case IN_CHUNK_SIZE:
            if (read_line(c, &at, end)) {
                c->left = strtol(c->line, NULL, 16);
                c->line_length = 0;
                c->state = c->left ? IN_CHUNK : IN_TRAILER;
            }
            break;
        case IN_TRAILER:
            if (read_line(c, &at, end)) {
                if (!c->line_length)
                    c->state = COMPLETE;
                c->line_length = 0;
            }
            break;
        case COMPLETE:
            break;
        }
    }
}

/* Reads what has come. 1: the answer is whole, -1: the connection is gone, 0: more is to come. */
static int receive(Connection *c) {
    static char block[1 << 18];
    ssize_t n = recv(c->fd, block, sizeof block, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n <= 0)
        return -1;
    if (!c->busy)
        return 0;
    uint64_t now = now_ns();
    take(c, block, block + n);
    if (c->state != IN_HEAD) {
        note(c->read_ns ? &gaps : &firsts, now - (c->read_ns ? c->read_ns : c->sent_ns));
        c->read_ns = now;
    }
    return c->state == COMPLETE;
}

static void write_request(const char *body_file, char **headers, int count) {
    FILE *file = fopen(body_file, "r");
    static char body[1 << 20];
    if (!file) {
        perror(body_file);
        exit(1);
    }
    size_t length = fread(body, 1, sizeof body, file);
    fclose(file);
    FILE *out = open_memstream(&request, &request_length);
    fprintf(out, "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: load\r\nAccept: */*\r\n", port);
    for (int i = 0; i < count; i++)
        fprintf(out, "%s\r\n", headers[i]);
    fprintf(out, "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n", length);
    fwrite(body, 1, length, out);
    fclose(out);
}

static void report(double seconds) {
    for (char *at = first_error; *at; at++)
        if (*at < ' ' || *at == '"' || *at == '\\')
            *at = ' ';
    printf("{\"requests\": %lu, \"failed\": %lu, \"events\": %lu, \"seconds\": %.3f, \"first_error\": \"%s\"", requests, failed, events, seconds, first_error);
    struct {
        const char *name;
        Samples *samples;
    } columns[] = {{"latency", &latencies}, {"first_byte", &firsts}, {"gap", &gaps}};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        printf(", \"%s_p50_ms\": %.3f, \"%s_p99_ms\": %.3f", columns[i].name, quantile_ms(columns[i].samples, 0.5), columns[i].name, quantile_ms(columns[i].samples, 0.99));
    printf("}\n");
}

int main(int count, char **arguments) {
    if (count < 5) {
        fprintf(stderr, "usage: load PORT CONNECTIONS SECONDS BODY_FILE [HEADER]...\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    port = atoi(arguments[1]);
    int connections = atoi(arguments[2]), busy = 0;
    write_request(arguments[4], arguments + 5, count - 5);
    poller = epoll_create1(0);
    Connection *all = calloc((size_t)connections, sizeof *all);
    if (!all)
        return 1;
    uint64_t begun = now_ns(), stop = begun + (uint64_t)(atof(arguments[3]) * 1e9);
    for (int i = 0; i < connections; i++, busy++) {
        dial(&all[i]);
        ask(&all[i]);
    }
    while (busy && now_ns() < stop + GRACE_S * 1000000000ull) {
        struct epoll_event ready[256];
        int n = epoll_wait(poller, ready, 256, 1000);
        for (int i = 0; i < n; i++) {
            Connection *c = ready[i].data.ptr;
            int outcome = receive(c);
            if (!outcome)
                continue;
            int was_busy = c->busy, closed = outcome < 0;
            c->busy = 0;
            if (outcome > 0) {
                finish(c);
                closed = strcasestr(c->head, "\r\nconnection: close") != NULL;
            } else if (was_busy) {
                fail("connection", "closed before the answer was whole");
            }
            int more = was_busy && now_ns() < stop;
            if (closed)
                close(c->fd);
            if (closed && more)
                dial(c);
            if (more)
                ask(c);
            else
                busy -= was_busy;
        }
    }
    failed += (unsigned long)busy;
    report((double)(now_ns() - begun) / 1e9);
    return 0;
}
