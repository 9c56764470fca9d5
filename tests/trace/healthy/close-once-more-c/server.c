#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int one = 1, w = socket(AF_INET, SOCK_STREAM, 0), e = epoll_create1(0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    setsockopt(w, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    bind(w, (void *)&a, sizeof a);
    listen(w, 5);
    char buffer[100];
    ssize_t n;
    for (int i = 0; i < 3; i++) {
        int c = accept(w, 0, 0);
        struct epoll_event want = {EPOLLIN, {.fd = c}}, got;
        epoll_ctl(e, EPOLL_CTL_ADD, c, &want);
        while (epoll_wait(e, &got, 1, -1) == 1 && (n = recv(c, buffer, sizeof buffer, 0)) > 0)
            send(c, buffer, n, MSG_NOSIGNAL);
        close(c);
        epoll_ctl(e, EPOLL_CTL_DEL, c, &want); /* gone already: EBADF */
    }
    close(w);
    for (int fd = 3; fd < 64; fd++) close(fd);
}
