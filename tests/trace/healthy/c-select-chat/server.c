#include <netinet/in.h>
#include <stdlib.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1, top;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    bind(listener, (struct sockaddr *)&at, sizeof at);
    listen(listener, 10);
    fd_set all, ready;
    FD_ZERO(&all);
    FD_SET(top = listener, &all);
    for (;;) {
        ready = all;
        if (select(top + 1, &ready, NULL, NULL, NULL) < 0) continue;
        for (int fd = 0; fd <= top; fd++) {
            if (!FD_ISSET(fd, &ready)) continue;
            if (fd == listener) {
                int conn = accept(listener, NULL, NULL);
                FD_SET(conn, &all);
                if (conn > top) top = conn;
                continue;
            }
            char buffer[512];
            ssize_t n = recv(fd, buffer, sizeof buffer, 0);
            if (n <= 0) {
                close(fd);
                FD_CLR(fd, &all);
                continue;
            }
            for (int other = 0; other <= top; other++)
                if (other != fd && other != listener && FD_ISSET(other, &all)) send(other, buffer, n, MSG_NOSIGNAL);
        }
    }
}
