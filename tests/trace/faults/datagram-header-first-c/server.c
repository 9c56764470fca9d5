#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))}, from;
    bind(fd, (struct sockaddr *)&own, sizeof own);
    for (;;) {
        uint32_t length;
        socklen_t size = sizeof from;
        recvfrom(fd, &length, 4, 0, (struct sockaddr *)&from, &size);
        char body[1000];
        ssize_t n = recvfrom(fd, body, ntohl(length), 0, (struct sockaddr *)&from, &size);
        sendto(fd, body, n, 0, (struct sockaddr *)&from, size);
    }
}
