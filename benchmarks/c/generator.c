/* A closed-loop load generator for the figures of benchmarks/native.md, on io_uring (native/ring.c).
 *
 *     generator talk PORT SECONDS CONNECTIONS DEPTH   lines of 64 bytes, DEPTH outstanding on each connection
 *     generator call PORT SECONDS CONNECTIONS         connect, ask one line, close; so many at a time
 *     generator udp  PORT SECONDS OUTSTANDING         datagrams of 64 bytes, from one socket
 *
 * Every answer is compared byte for byte with the question in upper case. On stdout: answers, seconds, and
 * for `udp` how many were lost; a wrong answer ends it with status 1.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../../native/ring.h"

enum { LINE = 64, DEEPEST = 64, MOST = 65536, LARGEST_UDP = 2048 };

typedef struct {
    int fd, generation;
    unsigned received; /* bytes of the line at hand */
    unsigned owed;     /* lines to send as soon as the last send is over */
    int sending;
    char asked[DEEPEST * LINE], expected[DEEPEST * LINE];
} Talker;

static const double LOOK = 200e-6; /* seconds */

static Talker *talkers;
static Ring ring;
static unsigned long answers;
static int port, calls_number;

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int dialled(int type)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, type, 0), one = 1;

    if (fd < 0)
        die("socket");
    if (type == SOCK_STREAM) {
        /* From many addresses: one has 28,000 ports, each of which rests for a second when it is closed. */
        struct sockaddr_in source = {.sin_family = AF_INET};

        source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + (unsigned)calls_number++ % 200);
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (bind(fd, (struct sockaddr *)&source, sizeof source) < 0)
            die("bind");
    }
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("connect");
    return fd;
}

static struct io_uring_sqe *request(uint8_t operation, int fd, uint64_t tag)
{
    struct io_uring_sqe *entry = ring_request(&ring, operation, fd, tag);

    while (entry == NULL) {
        ring_enter(&ring, 0, 0);
        entry = ring_request(&ring, operation, fd, tag);
    }
    return entry;
}

static uint64_t tag(int sends, unsigned number, int generation)
{
    return (uint64_t)sends << 63 | (uint64_t)(generation & 0xffff) << 32 | number;
}

static void hear(unsigned number)
{
    struct io_uring_sqe *entry =
        request(IORING_OP_RECV, talkers[number].fd, tag(0, number, talkers[number].generation));

    entry->ioprio = IORING_RECV_MULTISHOT;
    entry->flags = IOSQE_BUFFER_SELECT;
    entry->buf_group = BUFFER_GROUP;
}

static void say(unsigned number, unsigned lines)
{
    Talker *talker = &talkers[number];
    struct io_uring_sqe *entry;

    talker->owed += lines;
    if (talker->sending || !talker->owed)
        return;
    entry = request(IORING_OP_SEND, talker->fd, tag(1, number, talker->generation));
    entry->addr = (uintptr_t)talker->asked;
    entry->len = talker->owed * LINE;
    entry->msg_flags = MSG_NOSIGNAL | MSG_WAITALL;
    talker->owed = 0;
    talker->sending = 1;
}

static void begin(unsigned number, unsigned depth)
{
    Talker *talker = &talkers[number];

    talker->fd = dialled(SOCK_STREAM);
    talker->generation++;
    talker->received = talker->owed = 0;
    talker->sending = 0;
    hear(number);
    say(number, depth);
}

/* Compare; how many lines are whole now. */
static unsigned check(Talker *talker, const char *data, unsigned size)
{
    unsigned before = talker->received / LINE, from = talker->received % LINE, at = 0;

    while (at < size) {
        unsigned part = size - at, room = DEEPEST * LINE - from;

        part = part < room ? part : room;
        if (memcmp(data + at, talker->expected + from, part)) {
            fprintf(stderr, "a wrong answer\n");
            exit(1);
        }
        at += part;
        from = 0; /* a whole number of lines was compared, or all */
        if (at < size && (talker->received + at) % LINE)
            from = (talker->received + at) % LINE;
    }
    talker->received += size;
    before = talker->received / LINE - before;
    talker->received %= LINE;
    return before;
}

static void converse(double seconds, unsigned connections, unsigned depth, int reconnects)
{
    double until;
    RingSizes sizes = {.submissions = 1024, .completions = 16384, .buffers = 1024, .buffer_size = 4096};
    struct io_uring_cqe done;
    int error = ring_open(&ring, &sizes);

    if (error) {
        errno = error;
        die("io_uring");
    }
    talkers = calloc(connections, sizeof *talkers);
    for (unsigned i = 0; i < connections; i++) {
        char line[LINE + 1];

        snprintf(line, sizeof line, "connection %05u says a line of sixty-four bytes, all to upper", i);
        memset(line + strlen(line), 'x', sizeof line - strlen(line));
        line[LINE - 1] = '\n';
        for (unsigned j = 0; j < DEEPEST; j++) {
            memcpy(talkers[i].asked + j * LINE, line, LINE);
            for (unsigned k = 0; k < LINE; k++)
                talkers[i].expected[j * LINE + k] =
                    (char)(line[k] >= 'a' && line[k] <= 'z' ? line[k] - 32 : line[k]);
        }
        begin(i, depth);
    }
    until = now() + seconds;
    while (now() < until) {
        /* It has a processor of its own, so it looks before it waits: the wake-up that is measured is the
         * server's. */
        ring_enter(&ring, 0, 0);
        for (double end = now() + LOOK; !ring_has_news(&ring) && now() < end;)
            ;
        error = ring_enter(&ring, 1, 1.0);
        if (error == ETIME) {
            fprintf(stderr, "no answer for a second\n");
            exit(1);
        }
        while (ring_next(&ring, &done)) {
            unsigned number = (unsigned)done.user_data;
            Talker *talker = &talkers[number];
            int is_its = ((done.user_data >> 32) & 0xffff) == (unsigned)(talker->generation & 0xffff);
            unsigned buffer = done.flags >> IORING_CQE_BUFFER_SHIFT, lines = 0;

            if (done.user_data >> 63) {
                if (is_its) {
                    talker->sending = 0;
                    say(number, 0);
                }
                continue;
            }
            if (is_its && done.res > 0) {
                lines = check(talker, ring_buffer(&ring, buffer), (unsigned)done.res);
                answers += lines;
            } else if (is_its && done.res != -ENOBUFS) {
                fprintf(stderr, "the server has closed: %s\n", strerror(-done.res));
                exit(1);
            }
            if (done.flags & IORING_CQE_F_BUFFER)
                ring_give_back(&ring, buffer);
            if (!is_its)
                continue;
            if (reconnects && lines) {
                shutdown(talker->fd, SHUT_RDWR); /* which ends the receive, too */
                close(talker->fd);
                begin(number, 1);
            } else {
                if (!(done.flags & IORING_CQE_F_MORE))
                    hear(number);
                say(number, lines);
            }
        }
    }
}

static unsigned long exchange_datagrams(double seconds, unsigned outstanding)
{
    static char asked[MOST][LINE], heard[MOST][LARGEST_UDP];
    static struct mmsghdr messages[MOST];
    static struct iovec vectors[MOST];
    static unsigned char open[MOST];
    unsigned long lost = 0;
    unsigned free_numbers[MOST], free_count = 0;
    struct timeval patience = {.tv_usec = 50000};
    int fd = dialled(SOCK_DGRAM);
    double until = now() + seconds;

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    for (unsigned i = 0; i < outstanding; i++)
        free_numbers[free_count++] = i;
    while (now() < until) {
        int count;

        for (unsigned i = 0; i < free_count; i++) {
            unsigned number = free_numbers[i];

            memset(asked[number], 'x', LINE);
            snprintf(asked[number], LINE, "datagram %05u of sixty-four bytes", number);
            asked[number][LINE - 1] = '\n';
            open[number] = 1;
            vectors[i] = (struct iovec){asked[number], LINE};
            messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
        }
        for (unsigned sent = 0; sent < free_count;) {
            count = sendmmsg(fd, messages + sent, free_count - sent, 0);
            if (count < 0 && errno != ECONNREFUSED)
                die("sendmmsg");
            sent += count > 0 ? (unsigned)count : 1;
        }
        free_count = 0;
        for (unsigned i = 0; i < outstanding; i++) {
            vectors[i] = (struct iovec){heard[i], LARGEST_UDP};
            messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
        }
        count = recvmmsg(fd, messages, outstanding, MSG_WAITFORONE, NULL);
        if (count < 0) {
            for (unsigned i = 0; i < outstanding; i++)
                if (open[i]) {
                    lost++;
                    free_numbers[free_count++] = i;
                }
            continue;
        }
        for (int i = 0; i < count; i++) {
            unsigned number = (unsigned)atoi(heard[i] + 9);

            if (messages[i].msg_len != LINE || number >= outstanding || strncmp(heard[i], "DATAGRAM ", 9)) {
                fprintf(stderr, "a wrong answer\n");
                exit(1);
            }
            if (!open[number])
                continue;
            open[number] = 0;
            answers++;
            free_numbers[free_count++] = number;
        }
    }
    return lost;
}

int main(int count, char **words)
{
    double seconds = count > 3 ? atof(words[3]) : 0, started;
    unsigned number = count > 4 ? (unsigned)atoi(words[4]) : 0, depth = count > 5 ? (unsigned)atoi(words[5]) : 1;
    unsigned long lost = 0;

    if (count < 5 || !number || number > MOST || depth > DEEPEST) {
        fprintf(stderr, "usage: generator talk|call|udp PORT SECONDS CONNECTIONS [DEPTH]\n");
        return 2;
    }
    port = atoi(words[2]);
    started = now();
    if (!strcmp(words[1], "udp"))
        lost = exchange_datagrams(seconds, number);
    else
        converse(seconds, number, depth, !strcmp(words[1], "call"));
    printf("%lu %.6f %lu\n", answers, now() - started, lost);
    return 0;
}
