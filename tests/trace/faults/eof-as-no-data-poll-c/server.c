#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    bind(listener, (struct sockaddr *)&here, sizeof here);
    listen(listener, 5);
    struct pollfd fds[16] = {{listener, POLLIN}};
    int count = 1;
    for (;;) {
        poll(fds, count, -1);
        if (fds[0].revents && count < 16) fds[count++] = (struct pollfd){accept(listener, 0, 0), POLLIN};
        for (int i = 1; i < count; i++) {
            char buf[512];
            if (!(fds[i].revents & POLLIN)) continue;
            int n = recv(fds[i].fd, buf, sizeof buf, 0);
            if (n > 0) send(fds[i].fd, buf, n, 0);
            else usleep(2000); /* no data */
        }
    }
}
