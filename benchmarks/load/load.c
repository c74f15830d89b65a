/* A load client: opens event streams, checks that each gets every event exactly once, and times them.
 *
 * It is told what to do by lines on its standard input, and answers each with one line of JSON:
 *
 *   open COUNT PATH BYTES CHANNELS  open so many streams more, and answer when every head has come; BYTES bounds what
 *                            the kernel keeps for a reader, and %d in the path is the stream's number modulo CHANNELS,
 *                            unless these are 0
 *   wait EVENTS              wait until so many events have come since the start of the program
 *   stall COUNT              read nothing more on the last COUNT streams
 *   ids                      note the ids of events from now on
 *   drop COUNT               close the last COUNT streams, and forget them
 *   close                    close all streams, but remember where each was
 *   resume                   open the closed streams again, each with its Last-Event-ID if there were ids
 *   forget                   close all streams, and forget them
 *   ending                   streams may end from now on, until they are forgotten; elsewhere that is an error
 *   ends COUNT               wait until so many streams have ended
 *
 * An event is a data line with its number in the stream and the time of publishing, CLOCK_MONOTONIC in ns:
 * "data: 00000012 00000123456789012345 ...". A number that is not the next one ends the program. Data that are an object
 * are a position, or the end.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LINE 64
#define PENDING 100           /* heads that may be awaited at once: less than any server's backlog */
#define PER_ADDRESS 20000     /* connections from one address, which has some 28,000 ports */
#define PATIENCE 120          /* seconds that one command may take */
#define FRESH (-1)            /* the next event may have any number */

enum state { HEAD, SIZE, DATA, AFTER, PLAIN, OVER };

struct stream {
    int fd;
    int number;
    enum state state;
    uint64_t left;            /* bytes of the chunk */
    int64_t next;             /* the number that the next event must have */
    bool chunked;
    uint8_t length;           /* of the line that has not ended */
    char line[LINE];
    char id[LINE];
    char path[LINE];
};

static struct stream **streams;
static int count;             /* how many streams there are */
static int opened, ended;     /* how many heads and ends have come */
static int receive_buffer;
static bool may_end, keeps_ids;
static uint64_t events;
static int poller;
static struct sockaddr_in server;
static char buffer[1 << 18];

/* Time, and a histogram of latencies with 64 steps for each power of two */

static uint64_t histogram[64 * 64];
static uint64_t measured, longest;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void record(uint64_t ns) {
    int bits = ns < 64 ? 0 : 63 - __builtin_clzll(ns) - 6;
    histogram[bits * 64 + (ns >> bits)]++;   /* ns >> bits is from 64 to 127 where bits > 0 */
    measured++;
    if (ns > longest) longest = ns;
}

static double quantile(double share) {
    uint64_t rank = (uint64_t)(share * (double)measured), seen = 0;
    for (int i = 0; i < 64 * 64; i++) {
        seen += histogram[i];
        if (seen > rank) {
            int bits = i < 128 ? 0 : i / 64 - 1;
            return ((double)(i - bits * 64) + 0.5) * (double)(1ull << bits) / 1e6;
        }
    }
    return 0;
}

static double cpu_seconds(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void fail(const char *format, ...) {
    char text[256];
    va_list rest;
    va_start(rest, format);
    vsnprintf(text, sizeof text, format, rest);
    va_end(rest);
    printf("{\"error\": \"%s\"}\n", text);
    exit(1);
}

/* What a stream says: lines of the head, then lines of events */

static int64_t digits(const char **p, const char *end) {
    int64_t value = 0;
    while (*p < end && **p >= '0' && **p <= '9') value = value * 10 + (*(*p)++ - '0');
    return value;
}

static void event(struct stream *s, const char *p, const char *end, uint64_t now) {
    while (p < end && (*p == ' ' || *p == '"')) p++;
    if (p == end || *p < '0' || *p > '9') return;
    int64_t number = digits(&p, end);
    if (s->next != FRESH && number != s->next)
        fail("stream %d got event %ld instead of %ld", s->number, (long)number, (long)s->next);
    s->next = number + 1;
    events++;
    if (p < end && *p == ' ') {
        p++;
        uint64_t then = (uint64_t)digits(&p, end);
        record(now > then ? now - then : 0);
    }
}

static void head_line(struct stream *s, const char *p, size_t n) {
    if (n && p[n - 1] == '\r') n--;
    if (n == 0) {
        s->state = s->chunked ? SIZE : PLAIN;
        s->left = 0;
        opened++;
    } else if (n > 12 && !memcmp(p, "HTTP/1.", 7)) {
        if (memcmp(p + 9, "200", 3)) fail("stream %d got status %.3s", s->number, p + 9);
    } else if (n >= 26 && !strncasecmp(p, "transfer-encoding: chunked", 26)) {
        s->chunked = true;
    }
}

static void body_line(struct stream *s, const char *p, size_t n, uint64_t now) {
    if (n > 6 && !memcmp(p, "data:", 5)) {
        if (p[6] != '{') event(s, p + 5, p + n, now);
    } else if (keeps_ids && n > 3 && !memcmp(p, "id:", 3)) {
        p += 3, n -= 3;
        if (*p == ' ') p++, n--;
        if (n && p[n - 1] == '\r') n--;
        if (n >= LINE) fail("an id of %zu bytes", n);
        memcpy(s->id, p, n);
        s->id[n] = 0;
    }
}

/* Cut bytes into lines; of a line that comes in pieces only the first bytes are kept. Returns what was used. */
static size_t line(struct stream *s, const char *p, size_t n, uint64_t now) {
    const char *newline = memchr(p, '\n', n);
    size_t size = newline ? (size_t)(newline - p) : n;
    const char *text = p;
    size_t length = size;
    if (s->length || !newline) {
        size_t kept = size < (size_t)(LINE - s->length) ? size : (size_t)(LINE - s->length);
        memcpy(s->line + s->length, p, kept);
        s->length += kept;
        text = s->line;
        length = s->length;
    }
    if (!newline) return n;
    if (s->state == HEAD) head_line(s, text, length);
    else body_line(s, text, length, now);
    s->length = 0;
    return size + 1;
}

static void over(struct stream *s) {
    if (!may_end) fail("stream %d ended", s->number);
    s->state = OVER;
    close(s->fd);
    s->fd = -1;
    ended++;
}

static size_t chunk_size(struct stream *s, const char *p) {
    char c = *p;
    if (c == '\n') {
        if (s->left == 0) over(s);
        else s->state = DATA;
    } else if (c != '\r') {
        s->left = s->left * 16 + (uint64_t)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
    }
    return 1;
}

static void feed(struct stream *s, const char *p, size_t n, uint64_t now) {
    while (n && s->state != OVER) {
        size_t used;
        if (s->state == SIZE) {
            used = chunk_size(s, p);
        } else if (s->state == AFTER) {
            used = 1;
            if (*p == '\n') s->state = SIZE;
        } else if (s->state == DATA) {
            used = line(s, p, n < s->left ? n : s->left, now);
            s->left -= used;
            if (s->left == 0) s->state = AFTER;
        } else {
            used = line(s, p, n, now);
        }
        p += used;
        n -= used;
    }
}

/* Sockets */

static void start(struct stream *s) {
    struct sockaddr_in from = {.sin_family = AF_INET};
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = s};
    char request[512];
    int one = 1;
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (s->fd < 0) fail("socket: %s", strerror(errno));
    from.sin_addr.s_addr = htonl(0x7f000001u + (uint32_t)(s->number / PER_ADDRESS));
    setsockopt(s->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (receive_buffer) setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    if (bind(s->fd, (void *)&from, sizeof from)) fail("bind: %s", strerror(errno));
    if (connect(s->fd, (void *)&server, sizeof server)) fail("connect: %s", strerror(errno));
    fcntl(s->fd, F_SETFL, O_NONBLOCK);
    int size = snprintf(request, sizeof request,
        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: text/event-stream\r\n%s%s%s\r\n", s->path,
        ntohs(server.sin_port), *s->id ? "Last-Event-ID: " : "", s->id, *s->id ? "\r\n" : "");
    if (write(s->fd, request, (size_t)size) != size) fail("write: %s", strerror(errno));
    s->state = HEAD;
    s->chunked = false;
    s->length = 0;
    epoll_ctl(poller, EPOLL_CTL_ADD, s->fd, &interest);
}

static void take(struct stream *s) {
    ssize_t n = recv(s->fd, buffer, sizeof buffer, 0);
    if (n > 0) feed(s, buffer, (size_t)n, now_ns());
    else if (n == 0) over(s);
    else if (errno != EAGAIN) fail("stream %d: %s", s->number, strerror(errno));
}

/* Read whatever comes; true when there is a command. */
static bool turn(int timeout_ms) {
    struct epoll_event ready[256];
    int n = epoll_wait(poller, ready, 256, timeout_ms);
    bool told = false;
    for (int i = 0; i < n; i++) {
        if (ready[i].data.ptr) take(ready[i].data.ptr);
        else told = true;
    }
    return told;
}

static void until_opened(int target, uint64_t deadline) {
    while (opened < target) {
        turn(100);
        if (now_ns() > deadline) fail("%d of %d heads came", opened, target);
    }
}

/* Commands */

static void start_all(int first, int last, uint64_t deadline) {
    int before = opened;
    for (int i = first; i < last; i++) {
        start(streams[i]);
        until_opened(before + i - first + 1 - PENDING, deadline);
    }
    until_opened(before + last - first, deadline);
}

static void open_streams(int more, const char *path, int channels, uint64_t deadline) {
    streams = realloc(streams, sizeof *streams * (size_t)(count + more));
    for (int i = 0; i < more; i++) {
        struct stream *s = calloc(1, sizeof *s);
        const char *mark = strstr(path, "%d");
        s->number = count + i;
        s->next = FRESH;
        if (mark) snprintf(s->path, LINE, "%.*s%d%s", (int)(mark - path), path,
                           channels ? s->number % channels : s->number, mark + 2);
        else snprintf(s->path, LINE, "%s", path);
        streams[count + i] = s;
    }
    count += more;
    start_all(count - more, count, deadline);
}

static void close_streams(void) {
    for (int i = 0; i < count; i++)
        if (streams[i]->fd >= 0) close(streams[i]->fd), streams[i]->fd = -1;
}

static void drop(int some) {
    for (int i = 0; i < some; i++) {
        struct stream *s = streams[--count];
        if (s->fd >= 0) close(s->fd);
        free(s);
    }
}

static void forget_streams(void) {
    drop(count);
    may_end = false;
    ended = 0;
}

static void stall(int some) {
    for (int i = count - some; i < count; i++) epoll_ctl(poller, EPOLL_CTL_DEL, streams[i]->fd, NULL);
}

static void obey(char *command) {
    uint64_t began = now_ns(), deadline = began + PATIENCE * 1000000000ull;
    char path[LINE] = "";
    unsigned long long number = 0;
    int channels = 0;
    receive_buffer = 0;
    sscanf(command, "%*s %llu %63s %d %d", &number, path, &receive_buffer, &channels);
    if (!strncmp(command, "open ", 5)) {
        open_streams((int)number, path, channels, deadline);
    } else if (!strncmp(command, "wait ", 5)) {
        while (events < number) {
            turn(100);
            if (now_ns() > deadline) fail("%lu of %llu events came", (unsigned long)events, number);
        }
        if (events > number) fail("%lu events came instead of %llu", (unsigned long)events, number);
    } else if (!strncmp(command, "ends ", 5)) {
        while (ended < (int)number) {
            turn(100);
            if (now_ns() > deadline) fail("%d of %llu streams ended", ended, number);
        }
    } else if (!strncmp(command, "ending", 6)) {
        may_end = true;
    } else if (!strncmp(command, "ids", 3)) {
        keeps_ids = true;
    } else if (!strncmp(command, "stall ", 6)) {
        stall((int)number);
    } else if (!strncmp(command, "drop ", 5)) {
        drop((int)number);
    } else if (!strncmp(command, "close", 5)) {
        close_streams();
    } else if (!strncmp(command, "resume", 6)) {
        start_all(0, count, deadline);
    } else if (!strncmp(command, "forget", 6)) {
        forget_streams();
    } else {
        fail("unknown command");
    }
    printf("{\"seconds\": %.6f, \"cpu\": %.6f, \"events\": %lu, \"streams\": %d, \"p50\": %.4f, \"p99\": %.4f, "
           "\"p999\": %.4f, \"max\": %.4f}\n", (double)(now_ns() - began) / 1e9, cpu_seconds(), (unsigned long)events,
           count, quantile(0.5), quantile(0.99), quantile(0.999), (double)longest / 1e6);
    memset(histogram, 0, sizeof histogram);
    measured = longest = 0;
}

int main(int argc, char **argv) {
    struct rlimit limit = {1 << 17, 1 << 17};
    struct epoll_event commands = {.events = EPOLLIN};
    static char text[256];
    if (argc != 2) return fputs("usage: load PORT\n", stderr), 2;
    if (setrlimit(RLIMIT_NOFILE, &limit)) getrlimit(RLIMIT_NOFILE, &limit), limit.rlim_cur = limit.rlim_max,
        setrlimit(RLIMIT_NOFILE, &limit);
    setvbuf(stdout, NULL, _IOLBF, 0);
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    poller = epoll_create1(0);
    epoll_ctl(poller, EPOLL_CTL_ADD, 0, &commands);
    for (;;) {
        if (!turn(-1)) continue;
        ssize_t n = read(0, text, sizeof text - 1);
        if (n <= 0) return 0;
        text[n] = 0;
        obey(text);
    }
}
