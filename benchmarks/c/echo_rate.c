/* An echo server that waits with epoll, and a client that counts round trips: what trace_sources.py measures.
 *
 *     echo_rate server                       print the port; exit when the last client has closed
 *     echo_rate client PORT N SECONDS        N connections at once, for a time; print the rate per second
 *     echo_rate client PORT N -COUNT         the same, for COUNT round trips */
#define _GNU_SOURCE 1
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 64, MOST = 64 };

static int serve(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof address;
    struct epoll_event event = {.events = EPOLLIN}, ready[MOST];
    int listener = socket(AF_INET, SOCK_STREAM, 0), poller = epoll_create1(0), open = 0;
    long requests = 0;
    char buffer[4096];
    if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, MOST))
        return 1;
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    event.data.fd = listener;
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(poller, ready, MOST, -1);
        for (int at = 0; at < count; at++) {
            int each = ready[at].data.fd;
            if (each == listener) {
                event.data.fd = accept(listener, NULL, NULL);
                epoll_ctl(poller, EPOLL_CTL_ADD, event.data.fd, &event);
                open++;
                continue;
            }
            ssize_t size = read(each, buffer, sizeof buffer);
            if (size > 0 && write(each, buffer, size) == size) {
                requests++;
                continue;
            }
            close(each);
            if (--open)
                continue;
            struct rusage used;
            getrusage(RUSAGE_SELF, &used);
            double seconds = used.ru_utime.tv_sec + used.ru_stime.tv_sec
                             + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
            fprintf(stderr, "requests %ld processor %.3f us\n", requests, seconds / requests * 1e6);
            return 0;
        }
    }
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static int ask(int port, int count, double limit)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    char text[SIZE] = "text", answer[SIZE];
    int sockets[MOST];
    long done = 0;
    for (int at = 0; at < count && at < MOST; at++) {
        sockets[at] = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(sockets[at], (struct sockaddr *)&address, sizeof address))
            return 1;
    }
    double began = now(), seconds;
    do {
        for (int at = 0; at < count; at++)
            if (write(sockets[at], text, SIZE) != SIZE)
                return 1;
        for (int at = 0; at < count; at++)
            if (recv(sockets[at], answer, SIZE, MSG_WAITALL) != SIZE)
                return 1;
        done += count;
        seconds = now() - began;
    } while (limit > 0 ? seconds < limit : done < -limit);
    printf("%.0f\n", done / seconds);
    return 0;
}

int main(int count, char **arguments)
{
    if (count == 5 && !strcmp(arguments[1], "client"))
        return ask(atoi(arguments[2]), atoi(arguments[3]), atof(arguments[4]));
    return count == 2 && !strcmp(arguments[1], "server") ? serve() : 2;
}
