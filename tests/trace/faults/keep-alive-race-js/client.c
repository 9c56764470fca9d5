#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int ask(int fd, const char *path) {
    char buf[2048];
    int n = snprintf(buf, sizeof buf, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
    if (send(fd, buf, n, MSG_NOSIGNAL) != n) {
        perror("send");
        return -1;
    }
    n = recv(fd, buf, sizeof buf - 1, 0);
    printf("%s: %d bytes\n", path, n);
    return n > 0 ? 0 : -1;
}

int main(int argc, char **argv) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    to.sin_addr.s_addr = inet_addr("127.0.0.1");
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) return 1;
    for (int i = 0; i < 2; i++) {
        if (ask(fd, "/temperature") < 0) return 1;
        sleep(2);
    }
    return 0;
}
