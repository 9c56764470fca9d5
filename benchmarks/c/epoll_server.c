/* The measure: a plain C echo server on epoll, as one would write it with care, and one for datagrams.
 *
 *     epoll_server tcp PORT      one epoll_wait() a batch, one recv() and one send() a chunk
 *     epoll_server udp PORT      recvfrom() and sendto(), one datagram after another
 *
 * It speaks upper case, as the Python services that it is compared with do: a look at every byte.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHUNK = 64 * 1024, BATCH = 256, BACKLOG = 4096 };

static char chunk[CHUNK];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int bound(int type, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, type, 0), one = 1;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("bind");
    return fd;
}

static void to_upper(char *text, ssize_t size)
{
    for (ssize_t i = 0; i < size; i++)
        text[i] = (char)(text[i] >= 'a' && text[i] <= 'z' ? text[i] - 32 : text[i]);
}

static void serve_datagrams(int port)
{
    int fd = bound(SOCK_DGRAM, port);

    for (;;) {
        struct sockaddr_in sender;
        socklen_t size = sizeof sender;
        ssize_t count = recvfrom(fd, chunk, sizeof chunk, 0, (struct sockaddr *)&sender, &size);

        if (count < 0)
            continue;
        to_upper(chunk, count);
        (void)sendto(fd, chunk, (size_t)count, 0, (struct sockaddr *)&sender, size);
    }
}

static void serve_connections(int port)
{
    int listener = bound(SOCK_STREAM | SOCK_NONBLOCK, port), epoll = epoll_create1(0);
    struct epoll_event events[BATCH], event = {.events = EPOLLIN, .data.fd = listener};

    if (listen(listener, BACKLOG) < 0)
        die("listen");
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll, events, BATCH, -1);

        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            ssize_t size;

            if (fd == listener) {
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    event = (struct epoll_event){.events = EPOLLIN, .data.fd = fd};
                    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
                }
                continue;
            }
            size = recv(fd, chunk, sizeof chunk, 0);
            if (size <= 0) {
                if (size == 0 || errno != EAGAIN)
                    close(fd);
                continue;
            }
            to_upper(chunk, size);
            /* Its clients have little outstanding: a short send does not happen, and would end them. */
            if (send(fd, chunk, (size_t)size, MSG_NOSIGNAL) != size)
                close(fd);
        }
    }
}

int main(int count, char **words)
{
    if (count == 3 && !strcmp(words[1], "tcp"))
        serve_connections(atoi(words[2]));
    if (count == 3 && !strcmp(words[1], "udp"))
        serve_datagrams(atoi(words[2]));
    fprintf(stderr, "usage: epoll_server tcp|udp PORT\n");
    return 2;
}
