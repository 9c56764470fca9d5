#include <arpa/inet.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int one = 1, count = 1;
    struct pollfd p[10] = {{socket(AF_INET, SOCK_STREAM, 0), POLLIN}};
    char open_[10] = "";
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    setsockopt(p[0].fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    bind(p[0].fd, (void *)&a, sizeof a);
    listen(p[0].fd, 5);
    while (poll(p, count, -1) > 0) {
        if (p[0].revents & POLLIN && count < 10) {
            p[count] = (struct pollfd){accept(p[0].fd, 0, 0), POLLIN};
            open_[count++] = 1;
        }
        for (int i = 1; i < count; i++) {
            char buffer[100];
            if (!(p[i].revents & POLLIN) || !open_[i]) continue;
            ssize_t n = recv(p[i].fd, buffer, sizeof buffer, 0);
            if (n <= 0) open_[i] = 0;
            else send(p[i].fd, buffer, n, 0);
        }
    }
}
