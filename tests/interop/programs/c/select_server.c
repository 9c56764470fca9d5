/* Many clients at once, by select: prints what arrives from whom, and answers nothing. Prints its port. */
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
    struct sockaddr_in me = {.sin_family = AF_INET};
    socklen_t size = sizeof me;
    fd_set known, ready;
    char buffer[1024];

    setlinebuf(stdout);
    int welcome = socket(AF_INET, SOCK_STREAM, 0);
    bind(welcome, (struct sockaddr *)&me, sizeof me);
    listen(welcome, 5);
    getsockname(welcome, (struct sockaddr *)&me, &size);
    printf("port %d\n", ntohs(me.sin_port));

    FD_ZERO(&known);
    FD_SET(welcome, &known);
    for (;;) {
        ready = known;
        select(FD_SETSIZE, &ready, NULL, NULL, NULL);
        /* Habits: all possible descriptors are looked at, and one past FD_SETSIZE would break it. */
        for (int fd = 0; fd < FD_SETSIZE; fd++) {
            if (!FD_ISSET(fd, &ready))
                continue;
            if (fd == welcome) {
                int client = accept(welcome, NULL, NULL);
                FD_SET(client, &known);
                printf("socket %d: hello\n", client);
                continue;
            }
            int n = recv(fd, buffer, sizeof buffer, 0);
            if (n > 0) {
                printf("socket %d: %.*s\n", fd, n, buffer);
            } else {
                printf("socket %d: bye\n", fd);
                close(fd);
                FD_CLR(fd, &known);
            }
        }
    }
}
