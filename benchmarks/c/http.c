/* The least that wrk can talk to: answers each request (an empty line ends it) with the same four bytes. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine";

int main(void)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof name;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), epoll = epoll_create1(0), on = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[256];
    char buffer[65536];

    if (bind(listener, (struct sockaddr *)&name, size) || listen(listener, 4096) ||
        getsockname(listener, (struct sockaddr *)&name, &size) || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event)) {
        perror("http");
        return 1;
    }
    printf("tcp://127.0.0.1:%d\n", ntohs(name.sin_port));
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(epoll, events, 256, -1);

        for (int i = 0; i < count; i++) {
            int sock = events[i].data.fd, made;
            ssize_t read;

            if (sock == listener) {
                while ((made = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                    event = (struct epoll_event){.events = EPOLLIN, .data.fd = made};
                    epoll_ctl(epoll, EPOLL_CTL_ADD, made, &event);
                }
            } else if ((read = recv(sock, buffer, sizeof buffer, 0)) <= 0) {
                close(sock);
            } else { /* those who measure send whole requests */
                for (char *at = buffer; (at = memmem(at, (size_t)(buffer + read - at), "\r\n\r\n", 4)); at += 4)
                    if (send(sock, answer, sizeof answer - 1, MSG_NOSIGNAL) < 0)
                        break;
            }
        }
    }
}
