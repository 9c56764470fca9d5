/* An epoll server in C, the reference for measurements: one thread, level-triggered, one recv() and one send()
 * for each event; for UDP one recvfrom() and one sendto().
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

/* The unsent bytes of a slow reader. */
struct unsent {
    char *bytes;
    size_t size;
};

static struct unsent *unsent; /* by descriptor */

static void upper(char *data, ssize_t size)
{
    for (ssize_t i = 0; i < size; i++)
        if (data[i] >= 'a' && data[i] <= 'z')
            data[i] -= 32;
}

static int open_socket(int type)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof name;
    int sock = socket(AF_INET, type, 0);

    if (sock < 0 || bind(sock, (struct sockaddr *)&name, size) || (type != SOCK_DGRAM && listen(sock, 4096))
        || getsockname(sock, (struct sockaddr *)&name, &size)) {
        perror("c_epoll");
        exit(1);
    }
    printf("%s://127.0.0.1:%d\n", type == SOCK_DGRAM ? "udp" : "tcp", ntohs(name.sin_port));
    fflush(stdout);
    return sock;
}

static void serve_datagrams(void)
{
    int sock = open_socket(SOCK_DGRAM);

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

static void close_connection(int sock)
{
    free(unsent[sock].bytes);
    unsent[sock] = (struct unsent){0};
    close(sock);
}

static void set_events(int epoll, int sock, unsigned events, int operation)
{
    struct epoll_event event = {.events = events, .data.fd = sock};

    epoll_ctl(epoll, operation, sock, &event);
}

/* Send a reply. Bytes that do not fit into the socket's send buffer are stored, and nothing is read until they are
 * sent. */
static void send_reply(int epoll, int sock, const char *data, size_t size)
{
    ssize_t sent = send(sock, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (sent < 0 && errno != EAGAIN) {
        close_connection(sock);
        return;
    }
    if (sent < 0)
        sent = 0;
    if ((size_t)sent < size) {
        char *rest = malloc(size - (size_t)sent);

        if (rest == NULL) {
            close_connection(sock);
            return;
        }
        memcpy(rest, data + sent, size - (size_t)sent);
        free(unsent[sock].bytes);
        unsent[sock] = (struct unsent){rest, size - (size_t)sent};
        set_events(epoll, sock, EPOLLOUT, EPOLL_CTL_MOD);
    } else if (unsent[sock].bytes) {
        free(unsent[sock].bytes);
        unsent[sock] = (struct unsent){0};
        set_events(epoll, sock, EPOLLIN, EPOLL_CTL_MOD);
    }
}

static void accept_all(int epoll, int listener)
{
    int sock, on = 1;

    while ((sock = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        set_events(epoll, sock, EPOLLIN, EPOLL_CTL_ADD);
    }
}

static void serve_streams(void)
{
    int listener = open_socket(SOCK_STREAM | SOCK_NONBLOCK), epoll = epoll_create1(0);
    struct epoll_event events[EVENTS];

    unsent = calloc((size_t)sysconf(_SC_OPEN_MAX), sizeof *unsent);
    if (unsent == NULL)
        exit(1);
    set_events(epoll, listener, EPOLLIN, EPOLL_CTL_ADD);
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);

        for (int i = 0; i < count; i++) {
            int sock = events[i].data.fd;
            ssize_t size;

            if (sock == listener) {
                accept_all(epoll, listener);
            } else if (unsent[sock].bytes) {
                send_reply(epoll, sock, unsent[sock].bytes, unsent[sock].size);
            } else if ((size = recv(sock, buffer, sizeof buffer, MSG_DONTWAIT)) > 0) {
                upper(buffer, size);
                send_reply(epoll, sock, buffer, (size_t)size);
            } else if (size == 0 || errno != EAGAIN) {
                close_connection(sock);
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
