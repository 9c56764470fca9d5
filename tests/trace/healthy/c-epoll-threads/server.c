#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static int epoll, listener;

static void *work(void *unused) {
    struct epoll_event event;
    char buffer[8192];
    for (;;) {
        if (epoll_wait(epoll, &event, 1, -1) != 1) continue;
        if (event.data.fd == listener) {
            int conn = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (conn >= 0) {
                struct epoll_event add = {.events = EPOLLIN | EPOLLET | EPOLLONESHOT, .data.fd = conn};
                epoll_ctl(epoll, EPOLL_CTL_ADD, conn, &add);
            }
            continue;
        }
        int fd = event.data.fd;
        ssize_t n;
        while ((n = read(fd, buffer, sizeof buffer)) > 0)
            for (ssize_t done = 0; done < n;) {
                ssize_t put = send(fd, buffer + done, n - done, MSG_NOSIGNAL);
                if (put < 0) break;
                done += put;
            }
        if (n == 0 || errno != EAGAIN) {
            close(fd);
            continue;
        }
        event.events = EPOLLIN | EPOLLET | EPOLLONESHOT;
        epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event);
    }
    return NULL;
}

int main(int argc, char **argv) {
    int on = 1;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    bind(listener, (struct sockaddr *)&at, sizeof at);
    listen(listener, 128);
    epoll = epoll_create1(0);
    struct epoll_event add = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &add);
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, work, NULL);
    pthread_join(threads[0], NULL);
}
