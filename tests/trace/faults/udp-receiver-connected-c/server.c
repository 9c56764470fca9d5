#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int argc, char **argv) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))}, from;
    bind(fd, (struct sockaddr *)&own, sizeof own);
    char line[200];
    for (;;) {
        socklen_t size = sizeof from;
        ssize_t n = recvfrom(fd, line, sizeof line, 0, (struct sockaddr *)&from, &size);
        connect(fd, (struct sockaddr *)&from, size);
        send(fd, line, n, 0);
    }
}
