#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int argc, char **argv) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))}, from;
    bind(fd, (struct sockaddr *)&own, sizeof own);
    for (;;) {
        char one;
        ssize_t n = recv(fd, &one, 1, MSG_PEEK | MSG_TRUNC);
        if (n < 0) return 1;
        char *data = malloc(n + 1);
        socklen_t size = sizeof from;
        n = recvfrom(fd, data, n, 0, (struct sockaddr *)&from, &size);
        sendto(fd, data, n, 0, (struct sockaddr *)&from, size);
        free(data);
    }
}
