#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET};
    socklen_t length = 0;
    char answer[512];
    if (argc < 2)
        return 2;
    to.sin_port = htons(atoi(argv[1]));
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    sendto(fd, "ping", 4, 0, (struct sockaddr *)&to, length);
    ssize_t n = recvfrom(fd, answer, sizeof answer, 0, (struct sockaddr *)&to, &length);
    printf("%.*s\n", (int)n, answer);
    return 0;
}
