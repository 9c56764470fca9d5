#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    bind(fd, (struct sockaddr *)&own, sizeof own);
    struct timeval limit = {1, 0};
    char block[1400];
    int count = 0;
    while (recv(fd, block, sizeof block, 0) > 0) {
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        count++;
        usleep(2000);  // writes it to a file
    }
    printf("%d blocks\n", count);
    pause();
}
