#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static int port;

struct conn { int fd, eof; size_t off, len; char buf[65536]; };

static int pump(struct conn *c)
{
    for (;;) {
        while (c->off < c->len) {
            ssize_t n = send(c->fd, c->buf + c->off, c->len - c->off, MSG_NOSIGNAL);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) return (errno == EAGAIN) ? 0 : -1;
            c->off += n;
        }
        if (c->eof) return -1;
        c->off = c->len = 0;
        ssize_t n = recv(c->fd, c->buf, sizeof c->buf, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return (errno == EAGAIN) ? 0 : -1;
        if (n == 0) c->eof = 1;
        c->len = n;
    }
}

int main(int argc, char **argv)
{
    port = atoi(argv[1]);
    int one = 1, done = 0, ls = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), ep = epoll_create1(0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(ls, (struct sockaddr *)&a, sizeof a) || listen(ls, 64)) { perror("listen"); return 1; }
    struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL}, got[8];
    epoll_ctl(ep, EPOLL_CTL_ADD, ls, &ev);
    while (done < 2) {
        int n = epoll_wait(ep, got, 8, -1);
        if (n < 0 && errno != EINTR) { perror("epoll_wait"); return 1; }
        for (int i = 0; i < n; i++) {
            struct conn *c = got[i].data.ptr;
            if (!c) {
                int fd;
                while ((fd = accept4(ls, 0, 0, SOCK_NONBLOCK)) >= 0) {
                    c = calloc(1, sizeof *c);
                    c->fd = fd;
                    ev.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
                    ev.data.ptr = c;
                    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
                }
                if (errno != EAGAIN) perror("accept");
            } else if (pump(c) < 0) {
                close(c->fd);
                free(c);
                done++;
            }
        }
    }
    close(ls);
    return 0;
}
