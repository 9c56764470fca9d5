#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

int main(int argc, char **argv) {
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_DGRAM}, *info;
    getaddrinfo("127.0.0.1", NULL, &hints, &info);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct timeval limit = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    sendto(fd, "ping", 4, 0, info->ai_addr, info->ai_addrlen);
    char answer[100];
    if (recv(fd, answer, sizeof answer, 0) < 0) printf("timeout\n");
}
