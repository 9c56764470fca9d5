/* A good epoll server in C: one thread, level-triggered, a recv() and a send() for each event; for UDP a
 * recvfrom() and a sendto(). What others are measured against.
 *
 * cc -O2 -o c_epoll c_epoll.c; ./c_epoll tcp
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHUNK = 65536, EVENTS = 256 };

static char buffer[CHUNK];

/* What a peer that reads slowly is owed still. */
struct owed {
    char *bytes;
    size_t size;
};

static struct owed *owed;

static void upper(char *data, ssize_t size)
{
    for (ssize_t i = 0; i < size; i++)
        if (data[i] >= 'a' && data[i] <= 'z')
            data[i] -= 32;
}

static int listening(int type)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof name;
    int sock = socket(AF_INET, type, 0);

    if (sock < 0 || bind(sock, (struct sockaddr *)&name, size) || (type != SOCK_DGRAM && listen(sock, 4096)) ||
        getsockname(sock, (struct sockaddr *)&name, &size)) {
        perror("c_epoll");
        exit(1);
    }
    printf("%s://127.0.0.1:%d\n", type == SOCK_DGRAM ? "udp" : "tcp", ntohs(name.sin_port));
    fflush(stdout);
    return sock;
}

static void serve_datagrams(void)
{
    int sock = listening(SOCK_DGRAM);

    for (;;) {
        struct sockaddr_in peer;
        socklen_t size = sizeof peer;
        ssize_t count = recvfrom(sock, buffer, sizeof buffer, 0, (struct sockaddr *)&peer, &size);

        if (count < 0)
            continue;
        upper(buffer, count);
        sendto(sock, buffer, (size_t)count, 0, (struct sockaddr *)&peer, size);
    }
}

static void finish(int sock)
{
    free(owed[sock].bytes);
    owed[sock] = (struct owed){0};
    close(sock);
}

static void watch(int epoll, int sock, unsigned events, int how)
{
    struct epoll_event event = {.events = events, .data.fd = sock};

    epoll_ctl(epoll, how, sock, &event);
}

/* Send; keep what the kernel has no room for, and read no more until it is gone. */
static void answer(int epoll, int sock, const char *data, size_t size)
{
    ssize_t sent = send(sock, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (sent < 0 && errno != EAGAIN) {
        finish(sock);
        return;
    }
    if (sent < 0)
        sent = 0;
    if ((size_t)sent < size) {
        char *rest = malloc(size - (size_t)sent);

        if (rest == NULL) {
            finish(sock);
            return;
        }
        memcpy(rest, data + sent, size - (size_t)sent);
        free(owed[sock].bytes);
        owed[sock] = (struct owed){rest, size - (size_t)sent};
        watch(epoll, sock, EPOLLOUT, EPOLL_CTL_MOD);
    } else if (owed[sock].bytes) {
        free(owed[sock].bytes);
        owed[sock] = (struct owed){0};
        watch(epoll, sock, EPOLLIN, EPOLL_CTL_MOD);
    }
}

static void welcome(int epoll, int listener)
{
    int sock, on = 1;

    while ((sock = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(epoll, sock, EPOLLIN, EPOLL_CTL_ADD);
    }
}

static void serve_streams(void)
{
    int listener = listening(SOCK_STREAM | SOCK_NONBLOCK), epoll = epoll_create1(0);
    struct epoll_event events[EVENTS];

    owed = calloc((size_t)sysconf(_SC_OPEN_MAX), sizeof *owed);
    if (owed == NULL)
        exit(1);
    watch(epoll, listener, EPOLLIN, EPOLL_CTL_ADD);
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);

        for (int i = 0; i < count; i++) {
            int sock = events[i].data.fd;
            ssize_t size;

            if (sock == listener) {
                welcome(epoll, listener);
            } else if (owed[sock].bytes) {
                answer(epoll, sock, owed[sock].bytes, owed[sock].size);
            } else if ((size = recv(sock, buffer, sizeof buffer, MSG_DONTWAIT)) > 0) {
                upper(buffer, size);
                answer(epoll, sock, buffer, (size_t)size);
            } else if (size == 0 || errno != EAGAIN) {
                finish(sock);
            }
        }
    }
}

int main(int count, char **arguments)
{
    if (count > 1 && strcmp(arguments[1], "udp") == 0)
        serve_datagrams();
    serve_streams();
}
