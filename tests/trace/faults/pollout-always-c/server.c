#include <arpa/inet.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int one = 1, w = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    setsockopt(w, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    bind(w, (void *)&a, sizeof a);
    listen(w, 5);
    char buffer[1000];
    ssize_t unsent = 0;
    struct pollfd p = {accept(w, 0, 0), POLLIN | POLLOUT};
    while (poll(&p, 1, -1) > 0) {
        if (p.revents & POLLIN) {
            unsent = recv(p.fd, buffer, sizeof buffer, 0);
            if (unsent <= 0) break;
        }
        if ((p.revents & POLLOUT) && unsent > 0) {
            send(p.fd, buffer, unsent, 0);
            unsent = 0;
        }
    }
    close(p.fd);
}
