#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <unistd.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <netinet/in.h>
struct conn { int fd; char out[256]; int len; } conns[64];
int main(int argc, char **argv) {
    int ls = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(ls, (void *)&a, sizeof a) || listen(ls, 64)) { perror("bind/listen"); return 1; }
    int ep = epoll_create1(0);
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = ls}, evs[16];
    epoll_ctl(ep, EPOLL_CTL_ADD, ls, &ev);
    for (;;) {
        int k = epoll_wait(ep, evs, 16, -1);
        for (int i = 0; i < k; i++) {
            int fd = evs[i].data.fd;
            if (fd == ls) {
                int c = accept(ls, NULL, NULL);
                fcntl(c, F_SETFL, O_NONBLOCK);
                ev.events = EPOLLIN | EPOLLET; ev.data.fd = c; epoll_ctl(ep, EPOLL_CTL_ADD, c, &ev);
                conns[c].fd = c;
                continue;
            }
            struct conn *c = &conns[fd];
            if (evs[i].events & EPOLLIN) {
                char req[128]; ssize_t n, total = 0;
                while ((n = read(fd, req + total, sizeof req - 1 - total)) > 0) total += n;
                if (n == 0) { close(fd); continue; }
                req[total] = 0;
                c->len = snprintf(c->out, sizeof c->out, "ok %zd %.20s", total, req);
                ev.events = EPOLLOUT | EPOLLET; ev.data.fd = fd; epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev);
            } else if (evs[i].events & EPOLLOUT) {
                if (c->len) { write(fd, c->out, c->len); c->len = 0; }
            }
        }
    }
}
