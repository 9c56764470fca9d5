#include <stdlib.h>
#include <stdio.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <sys/select.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    int ls = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])) };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(ls, (struct sockaddr *)&a, sizeof a) < 0) { perror("bind"); return 1; }
    listen(ls, 5);
    fd_set all, rd;
    FD_ZERO(&all);
    FD_SET(ls, &all);
    int maxfd = ls;
    for (;;) {
        rd = all;
        if (select(maxfd + 1, &rd, NULL, NULL, NULL) < 0) { perror("select"); return 1; }
        for (int fd = 0, top = maxfd; fd <= top; fd++) {
            if (!FD_ISSET(fd, &rd))
                continue;
            if (fd == ls) {
                int c = accept(ls, NULL, NULL);
                FD_SET(c, &all);
                maxfd = c;
            } else {
                char buf[256];
                ssize_t n = read(fd, buf, sizeof buf);
                if (n <= 0) { close(fd); FD_CLR(fd, &all); }
                else send(fd, buf, n, MSG_NOSIGNAL);
            }
        }
    }
}
