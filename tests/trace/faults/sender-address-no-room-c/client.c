#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    (void)argc;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in a = {0};
    char buf[512];
    a.sin_family = AF_INET;
    a.sin_port = htons(atoi(argv[1]));
    inet_pton(AF_INET, "127.0.0.1", &a.sin_addr);
    sendto(fd, "ping", 4, 0, (struct sockaddr *)&a, sizeof a);
    ssize_t n = recvfrom(fd, buf, sizeof buf, 0, NULL, NULL);
    printf("%.*s\n", (int)n, buf);
    return 0;
}
