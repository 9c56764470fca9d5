#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

int main(int argc, char **argv) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct timeval limit = {2, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    to.sin_addr.s_addr = htonl(INADDR_BROADCAST);
    sendto(fd, "discover", 8, 0, (struct sockaddr *)&to, sizeof to);
    char answer[100];
    ssize_t n = recv(fd, answer, sizeof answer, 0);
    if (n < 0) printf("no device found\n");
}
