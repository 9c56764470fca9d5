#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static int port;

#define TOTAL (3u << 20)

static int dial(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a)) { perror("connect"); exit(1); }
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    return fd;
}

int main(int argc, char **argv)
{
    port = atoi(argv[1]);
    int fd = dial(), idle = dial();
    size_t sent = 0, back = 0, wrong = 0;
    unsigned char out[16384], in[4096];
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN | (sent < TOTAL ? POLLOUT : 0)};
        if (poll(&p, 1, 5000) <= 0) { fprintf(stderr, "stalled\n"); return 1; }
        if (p.revents & POLLOUT) {
            size_t m = TOTAL - sent < sizeof out ? TOTAL - sent : sizeof out;
            for (size_t i = 0; i < m; i++) out[i] = (sent + i) % 251;
            ssize_t n = send(fd, out, m, MSG_NOSIGNAL);
            if (n < 0 && errno != EAGAIN) { perror("send"); return 1; }
            if (n > 0 && (sent += n) == TOTAL) shutdown(fd, SHUT_WR);
        }
        if (p.revents & (POLLIN | POLLHUP | POLLERR)) {
            ssize_t n = recv(fd, in, sizeof in, 0);
            if (n == 0) break;
            if (n < 0 && errno != EAGAIN) { perror("recv"); return 1; }
            for (ssize_t i = 0; i < n; i++) wrong += in[i] != (back + i) % 251;
            if (n > 0) back += n;
            if (back % 64 == 0) usleep(100);
        }
    }
    printf("sent %zu, back %zu, wrong %zu\n", sent, back, wrong);
    close(fd);
    close(idle);
    return sent != back || wrong;
}
