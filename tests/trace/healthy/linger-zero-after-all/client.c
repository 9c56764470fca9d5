#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A load generator: no TIME_WAIT at this end. */
int main(int argc, char **argv) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    to.sin_addr.s_addr = inet_addr("127.0.0.1");
    for (int i = 0; i < 20; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        struct linger hard = {1, 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) return 1;
        char buf[64];
        write(fd, "ping", 4);
        int n = 0;
        while (n < 4) n += read(fd, buf + n, sizeof buf - n);
        close(fd);
    }
    return 0;
}
