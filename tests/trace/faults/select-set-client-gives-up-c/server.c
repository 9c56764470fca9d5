#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <sys/select.h>
#include <sys/socket.h>
int main(int argc, char **argv) {
    int l = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 0)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(l, (struct sockaddr *)&a, sizeof a) || listen(l, 8)) { perror("bind"); return 1; }
    socklen_t len = sizeof a; getsockname(l, (struct sockaddr *)&a, &len);
    printf("%d\n", ntohs(a.sin_port)); fflush(stdout);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(l, &set);
    for (;;) {
        struct timeval tv = {0, 300000};
        int n = select(l + 1, &set, NULL, NULL, &tv);
        if (n == 0) continue;
        if (FD_ISSET(l, &set)) {
            int c = accept(l, NULL, NULL);
            char buf[256];
            ssize_t r = recv(c, buf, sizeof buf, 0);
            if (r > 0) send(c, buf, r, 0);
            close(c);
        }
    }
}
