#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX 64

int main(int argc, char *argv[])
{
    struct pollfd fds[MAX];
    int nfds = 1, i;
    char buf[512];
    struct sockaddr_in addr = {.sin_family = AF_INET};
    int s = socket(AF_INET, SOCK_STREAM, 0);

    addr.sin_port = htons(atoi(argv[1]));
    if (bind(s, (struct sockaddr *)&addr, sizeof addr) < 0 || listen(s, 16) < 0) {
        perror("server");
        return 1;
    }
    fds[0].fd = s;
    fds[0].events = POLLIN;
    for (;;) {
        if (poll(fds, nfds, -1) < 0) {
            perror("poll");
            return 1;
        }
        for (i = 0; i < nfds; i++) {
            if (!(fds[i].revents & POLLIN))
                continue;
            if (fds[i].fd == s) {
                fds[nfds].fd = accept(s, NULL, NULL);
                fds[nfds++].events = POLLIN;
            } else {
                ssize_t n = recv(fds[i].fd, buf, sizeof buf, 0);
                if (n <= 0)
                {
                    close(fds[i].fd);
                    fds[i].fd = -1;
                }
                else
                    send(fds[i].fd, buf, n, 0);
            }
        }
    }
}
