#include <netinet/in.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct sockaddr_in a = {AF_INET, htons(atoi(argv[1])), {htonl(INADDR_LOOPBACK)}};
    int s = socket(AF_INET, SOCK_STREAM, 0), ep = epoll_create1(0);
    struct epoll_event e = {EPOLLIN | EPOLLET, {.fd = s}}, events[8];
    char buf[256];
    bind(s, (struct sockaddr *)&a, sizeof a);
    listen(s, 16);
    usleep(300000); /* the machine has just started */
    epoll_ctl(ep, EPOLL_CTL_ADD, s, &e);
    for (;;) {
        int n = epoll_wait(ep, events, 8, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == s) {
                struct epoll_event c = {EPOLLIN, {.fd = accept(s, NULL, NULL)}};
                epoll_ctl(ep, EPOLL_CTL_ADD, c.data.fd, &c);
                continue;
            }
            ssize_t got = read(events[i].data.fd, buf, sizeof buf);
            if (got <= 0)
                close(events[i].data.fd);
            else
                write(events[i].data.fd, buf, got);
        }
    }
}
