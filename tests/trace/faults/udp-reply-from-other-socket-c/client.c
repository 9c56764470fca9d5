#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct addrinfo hints = {.ai_family = AF_INET6, .ai_socktype = SOCK_DGRAM}, *info;
    if (getaddrinfo("::1", argv[1], &hints, &info)) return 1;
    int fd = socket(info->ai_family, info->ai_socktype, 0);
    connect(fd, info->ai_addr, info->ai_addrlen);
    write(fd, "ping", 4);
    char line[200];
    ssize_t n = read(fd, line, sizeof line);
    printf("%zd\n", n);
}
