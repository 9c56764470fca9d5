#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);
    struct sockaddr_in6 own = {.sin6_family = AF_INET6, .sin6_port = htons(atoi(argv[1]))}, from;
    bind(fd, (struct sockaddr *)&own, sizeof own);
    char line[200];
    for (;;) {
        socklen_t size = sizeof from;
        ssize_t n = recvfrom(fd, line, sizeof line, 0, (struct sockaddr *)&from, &size);
        int out = socket(AF_INET6, SOCK_DGRAM, 0);
        sendto(out, line, n, 0, (struct sockaddr *)&from, size);
        close(out);
    }
}
