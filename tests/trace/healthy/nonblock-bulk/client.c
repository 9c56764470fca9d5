#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static int port;

#define TOTAL (6 * 1024 * 1024)

static int dial(void)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int try = 0; try < 20; try++) {
        int err = 0, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        socklen_t len = sizeof err;
        if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0)
            return fd;
        if (errno == EINPROGRESS) {
            struct pollfd p = { fd, POLLOUT, 0 };
            if (poll(&p, 1, 2000) == 1 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 && err == 0)
                return fd;
        }
        close(fd);
        usleep(200000);
    }
    fprintf(stderr, "server not up\n");
    exit(1);
}

int main(int argc, char **argv)
{
    port = atoi(argv[1]);
    static unsigned char in[65536], out[65536];
    size_t sent = 0, got = 0;
    int fd = dial(), shut = 0;
    for (;;) {
        struct pollfd p = { fd, POLLIN, 0 };
        if (sent < TOTAL)
            p.events |= POLLOUT;
        int r = poll(&p, 1, 8000);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            break;
        if (p.revents & POLLOUT && sent < TOTAL) {
            size_t k = TOTAL - sent < sizeof out ? TOTAL - sent : sizeof out;
            for (size_t i = 0; i < k; i++)
                out[i] = (sent + i) * 31 >> 3;
            ssize_t n = send(fd, out, k, MSG_NOSIGNAL);
            if (n > 0)
                sent += n;
            else if (n < 0 && errno != EAGAIN && errno != EINTR)
                break;
        }
        if (sent == TOTAL && !shut) {
            shutdown(fd, SHUT_WR);
            shut = 1;
        }
        if (p.revents & (POLLIN | POLLHUP | POLLERR)) {
            ssize_t n = recv(fd, in, sizeof in, 0);
            if (n == 0)
                break;
            if (n < 0) {
                if (errno == EAGAIN || errno == EINTR)
                    continue;
                perror("recv");
                break;
            }
            for (ssize_t i = 0; i < n; i++)
                if (in[i] != (unsigned char)((unsigned char)((got + i) * 31 >> 3) ^ 0x5a)) {
                    puts("wrong byte");
                    return 1;
                }
            got += n;
        }
    }
    close(fd);
    printf("%zu sent, %zu back\n", sent, got);
    return got == TOTAL ? 0 : 1;
}
