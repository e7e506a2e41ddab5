/* A fake engine for the benchmark: answers the OpenAI chat API at a fixed pace, costs little itself.
 *
 * usage: engine PORT INTERVAL_US        (PORT 0: any; prints the port, then serves until killed)
 *
 * POST with "stream":true  -> as many events as "max_tokens" says, one a tick to all streams alike, as
 *                             an engine's steps do; then finish, usage and [DONE].
 * POST otherwise           -> one chat.completion of about 600 bytes.
 * GET                      -> a list of one model.
 *
 * One thread, epoll, Content-Length bodies only. The text of the events varies, so that nothing on the
 * way can profit from repetition.
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
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { TEXTS = 97, PROMPT_TOKENS = 57, BODY_MAX = 1 << 20 };

#define ID "chatcmpl-0123456789abcdef0123456789abcdef"
#define STREAM_HEAD                                                                                \
    "HTTP/1.1 200 OK\r\nserver: engine\r\ncontent-type: text/event-stream; charset=utf-8\r\n"      \
    "transfer-encoding: chunked\r\n\r\n"
#define EVENT_FIELDS "{\"id\":\"" ID "\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"bench\","

typedef struct {
    char *data;
    size_t length, capacity;
} Buffer;

typedef struct Connection {
    int fd, waits_for_room, streaming, tokens, tokens_left;
    Buffer in, out;
    struct Connection *previous, *next; /* among the streams that tick */
} Connection;

static int poller;
static Connection streams; /* the ring's head */
static Buffer events[TEXTS], completion, models;

static void *checked(void *memory) {
    if (!memory) {
        perror("engine");
        exit(1);
    }
    return memory;
}

static void append(Buffer *buffer, const char *data, size_t length) {
    if (buffer->length + length > buffer->capacity) {
        buffer->capacity = 2 * (buffer->length + length);
        buffer->data = checked(realloc(buffer->data, buffer->capacity));
    }
    memcpy(buffer->data + buffer->length, data, length);
    buffer->length += length;
}

static void append_chunk(Buffer *buffer, const char *payload) {
    char size[24];
    append(buffer, size, (size_t)sprintf(size, "%zx\r\n", strlen(payload)));
    append(buffer, payload, strlen(payload));
    append(buffer, "\r\n", 2);
}

static void append_json(Buffer *buffer, const char *json) {
    char head[160];
    append(buffer, head,
           (size_t)sprintf(head, "HTTP/1.1 200 OK\r\nserver: engine\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n",
                           strlen(json)));
    append(buffer, json, strlen(json));
}

static void write_answers(void) {
    char text[2048], filler[256] = "";
    for (int i = 0; i < TEXTS; i++) {
        sprintf(text, "data: " EVENT_FIELDS "\"choices\":[{\"index\":0,\"delta\":{\"content\":\" tok%02d\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n", i);
        append_chunk(&events[i], text);
    }
    while (strlen(filler) < 220)
        strcat(filler, "A fixed answer of some length. ");
    sprintf(text,
            "{\"id\":\"" ID "\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"bench\",\"choices\":[{\"index\":0,"
            "\"message\":{\"role\":\"assistant\",\"content\":\"%s\",\"refusal\":null,\"tool_calls\":[]},\"logprobs\":null,"
            "\"finish_reason\":\"stop\",\"stop_reason\":null}],\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":64,\"total_tokens\":%d,"
            "\"prompt_tokens_details\":null},\"prompt_logprobs\":null}",
            filler, PROMPT_TOKENS, PROMPT_TOKENS + 64);
    append_json(&completion, text);
    append_json(&models, "{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\",\"created\":1700000000,"
                         "\"owned_by\":\"engine\",\"root\":\"bench\",\"parent\":null,\"max_model_len\":8192}]}");
}

static void watch(Connection *c, int for_room) {
    struct epoll_event change = {.events = EPOLLIN | (for_room ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &change);
    c->waits_for_room = for_room;
}

/* Sends what is waiting. -1 when the peer is gone. */
static int flush(Connection *c) {
    size_t sent = 0;
    while (sent < c->out.length) {
        ssize_t n = send(c->fd, c->out.data + sent, c->out.length - sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            return -1;
        if (n < 0)
            break;
        sent += (size_t)n;
    }
    memmove(c->out.data, c->out.data + sent, c->out.length - sent);
    c->out.length -= sent;
    if (c->waits_for_room != (c->out.length > 0))
        watch(c, c->out.length > 0);
    return 0;
}

static void leave_streams(Connection *c) {
    if (!c->streaming)
        return;
    c->previous->next = c->next;
    c->next->previous = c->previous;
    c->streaming = 0;
}

static void end(Connection *c) {
    leave_streams(c);
    close(c->fd);
    free(c->in.data);
    free(c->out.data);
    free(c);
}

static void append_last(Connection *c) {
    char text[512];
    append_chunk(&c->out, "data: " EVENT_FIELDS "\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n");
    sprintf(text, "data: " EVENT_FIELDS "\"choices\":[],\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d}}\n\n",
            PROMPT_TOKENS, c->tokens, PROMPT_TOKENS + c->tokens);
    append_chunk(&c->out, text);
    append_chunk(&c->out, "data: [DONE]\n\n");
    append(&c->out, "0\r\n\r\n", 5);
}

/* One step of the engine: a token to every stream. */
static void step(void) {
    for (Connection *c = streams.next, *next; c != &streams; c = next) {
        next = c->next;
        if (c->tokens_left > 0) {
            Buffer *event = &events[c->tokens_left-- % TEXTS];
            append(&c->out, event->data, event->length);
        } else {
            append_last(c);
            leave_streams(c);
        }
        if (flush(c) < 0)
            end(c);
    }
}

static int truthy(const char *body, const char *name) {
    const char *at = strstr(body, name);
    if (!at)
        return 0;
    at += strlen(name);
    return *(at + strspn(at, " :")) == 't';
}

static int number(const char *body, const char *name, int otherwise) {
    const char *at = strstr(body, name);
    if (!at)
        return otherwise;
    at += strlen(name);
    return atoi(at + strspn(at, " :"));
}

static void answer(Connection *c, const char *method, const char *body) {
    if (*method != 'P') {
        append(&c->out, models.data, models.length);
    } else if (!truthy(body, "\"stream\"")) {
        append(&c->out, completion.data, completion.length);
    } else {
        append(&c->out, STREAM_HEAD, strlen(STREAM_HEAD));
        c->tokens = c->tokens_left = number(body, "\"max_tokens\"", 16);
        c->streaming = 1;
        c->next = &streams;
        c->previous = streams.previous;
        streams.previous->next = c;
        streams.previous = c;
    }
}

/* Takes one whole request from what has come. 0: not there yet, 1: answered, -1: not understood. */
static int take_request(Connection *c) {
    append(&c->in, "", 1); /* so that the string functions end */
    c->in.length--;
    char *head_end = strstr(c->in.data, "\r\n\r\n");
    if (!head_end)
        return 0;
    *head_end = 0;
    char *length = strcasestr(c->in.data, "\r\ncontent-length:");
    int chunked = strcasestr(c->in.data, "\r\ntransfer-encoding:") != NULL;
    long body_length = length ? atol(length + strlen("\r\ncontent-length:")) : 0;
    *head_end = '\r';
    if (chunked || body_length < 0 || body_length > BODY_MAX)
        return -1;
    char *body = head_end + 4;
    size_t whole = (size_t)(body - c->in.data) + (size_t)body_length;
    if (c->in.length < whole)
        return 0;
    char after = c->in.data[whole];
    c->in.data[whole] = 0;
    answer(c, c->in.data, body);
    c->in.data[whole] = after;
    memmove(c->in.data, c->in.data + whole, c->in.length - whole);
    c->in.length -= whole;
    return 1;
}

/* -1 when the connection is to be closed. */
static int receive(Connection *c) {
    char block[65536];
    ssize_t n = recv(c->fd, block, sizeof block, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN))
        return -1;
    if (n > 0)
        append(&c->in, block, (size_t)n);
    int taken;
    while ((taken = c->in.length ? take_request(c) : 0) > 0) {
    }
    return taken < 0 ? -1 : flush(c);
}

static void accept_all(int listener) {
    int fd, yes = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        Connection *c = checked(calloc(1, sizeof *c));
        c->fd = fd;
        struct epoll_event interest = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &interest);
    }
}

static int listen_on(int port) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 4096)) {
        perror("engine");
        exit(1);
    }
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "usage: engine PORT INTERVAL_US\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    write_answers();
    streams.next = streams.previous = &streams;
    int listener = listen_on(atoi(arguments[1]));
    long interval_us = atol(arguments[2]);
    int clock = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct timespec interval = {interval_us / 1000000, interval_us % 1000000 * 1000};
    timerfd_settime(clock, 0, &(struct itimerspec){interval, interval}, NULL);
    poller = epoll_create1(0);
    /* Both are told from connections by their address. */
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &(struct epoll_event){.events = EPOLLIN, .data.ptr = &listener});
    epoll_ctl(poller, EPOLL_CTL_ADD, clock, &(struct epoll_event){.events = EPOLLIN, .data.ptr = &clock});
    for (;;) {
        struct epoll_event ready[256];
        int steps = 0, n = epoll_wait(poller, ready, 256, -1);
        for (int i = 0; i < n; i++) {
            void *source = ready[i].data.ptr;
            if (source == &listener) {
                accept_all(listener);
            } else if (source == &clock) {
                uint64_t expirations;
                steps = read(clock, &expirations, sizeof expirations) > 0;
            } else {
                Connection *c = source;
                int gone = ready[i].events & EPOLLOUT ? flush(c) : 0;
                if (gone < 0 || (ready[i].events & ~(uint32_t)EPOLLOUT && receive(c) < 0))
                    end(c);
            }
        }
        /* After the loop, because a step may end connections that are still in `ready`. */
        if (steps)
            step();
    }
}
