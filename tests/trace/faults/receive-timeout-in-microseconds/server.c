#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    int ls = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])) };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(ls, (struct sockaddr *)&a, sizeof a) < 0) { perror("bind"); return 1; }
    listen(ls, 5);
    for (;;) {
        int c = accept(ls, NULL, NULL);
        char cmd[64];
        ssize_t n = read(c, cmd, sizeof cmd);
        if (n > 0) {
            usleep(150000);
            send(c, "TEMP 20.5\n", 10, MSG_NOSIGNAL);
        }
        close(c);
    }
}
