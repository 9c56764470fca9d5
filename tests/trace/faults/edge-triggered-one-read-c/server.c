#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct sockaddr_in a = {AF_INET, htons(atoi(argv[1])), {htonl(INADDR_LOOPBACK)}};
    int s = socket(AF_INET, SOCK_STREAM, 0), e = epoll_create1(0), total = 0;
    struct epoll_event ev = {EPOLLIN, {.fd = s}}, got[8];
    char buf[256];
    bind(s, (struct sockaddr *)&a, sizeof a);
    listen(s, 5);
    epoll_ctl(e, EPOLL_CTL_ADD, s, &ev);
    for (;;) {
        int n = epoll_wait(e, got, 8, -1);
        for (int i = 0; i < n; i++) {
            int fd = got[i].data.fd;
            if (fd == s) {
                int c = accept(s, NULL, NULL);
                fcntl(c, F_SETFL, O_NONBLOCK);
                ev.events = EPOLLIN | EPOLLET;
                ev.data.fd = c;
                epoll_ctl(e, EPOLL_CTL_ADD, c, &ev);
            } else {
                total += read(fd, buf, sizeof buf);
                if (total >= 1000) write(fd, "ok", 2);
            }
        }
    }
}
