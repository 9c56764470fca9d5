#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int port;

#define BUF 65536

static void transform(int fd)
{
    static unsigned char b[BUF];
    size_t from = 0, to = 0;
    int eof = 0;
    while (!eof || from < to) {
        struct pollfd p = { fd, 0, 0 };
        if (!eof && to < BUF)
            p.events |= POLLIN;
        if (from < to)
            p.events |= POLLOUT;
        if (poll(&p, 1, -1) < 0) {
            if (errno == EINTR)
                continue;
            return;
        }
        if (p.events & POLLIN) {
            ssize_t n = recv(fd, b + to, BUF - to, 0);
            if (n == 0)
                eof = 1;
            else if (n > 0) {
                for (ssize_t i = 0; i < n; i++)
                    b[to + i] ^= 0x5a;
                to += n;
            } else if (errno != EAGAIN && errno != EINTR)
                return;
        }
        if (from < to) {
            ssize_t n = send(fd, b + from, to - from, MSG_NOSIGNAL);
            if (n > 0)
                from += n;
            else if (n < 0 && errno != EAGAIN && errno != EINTR)
                return;
        }
        if (from == to)
            from = to = 0;
    }
}

int main(int argc, char **argv)
{
    port = atoi(argv[1]);
    int one = 1, ls = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(ls, (struct sockaddr *)&a, sizeof a) || listen(ls, 8)) {
        perror("listen");
        return 1;
    }
    for (;;) {
        int fd = accept(ls, NULL, NULL);
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            perror("accept");
            return 1;
        }
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
        transform(fd);
        close(fd);
    }
}
