#include <stdlib.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#define IDLE_LIMIT 30

int main(int argc, char **argv)
{
    int ls = socket(AF_INET, SOCK_STREAM, 0), one = 1, c = -1, idle = 0;
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])) };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(ls, (struct sockaddr *)&a, sizeof a) < 0) { perror("bind"); return 1; }
    listen(ls, 5);
    c = accept(ls, NULL, NULL);

    struct timeval second = { 1, 0 };
    for (;;) {
        fd_set rd;
        FD_ZERO(&rd);
        FD_SET(c, &rd);
        int n = select(c + 1, &rd, NULL, NULL, &second);
        if (n < 0) { perror("select"); return 1; }
        if (n == 0) {
            if (++idle >= IDLE_LIMIT) {
                printf("session idle for %d seconds, closing\n", idle);
                break;
            }
            continue;
        }
        char buf[128];
        ssize_t r = recv(c, buf, sizeof buf, 0);
        if (r <= 0) {
            printf("client has gone\n");
            break;
        }
        idle = 0;
        send(c, "PONG\n", 5, MSG_NOSIGNAL);
    }
    close(c);
    close(ls);
    return 0;
}
