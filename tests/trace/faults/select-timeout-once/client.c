#include <stdlib.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])) };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) { perror("connect"); return 1; }
    for (int i = 0; i < 3; i++) {
        char buf[64];
        if (send(fd, "PING\n", 5, MSG_NOSIGNAL) < 0) { perror("send"); return 1; }
        ssize_t n = recv(fd, buf, sizeof buf, 0);
        if (n < 0) { perror("recv"); return 1; }
        if (n == 0) { printf("session was closed by server\n"); return 1; }
        printf("%.*s", (int)n, buf);
        fflush(stdout);
        if (i < 2)
            sleep(2);
    }
    close(fd);
    return 0;
}
