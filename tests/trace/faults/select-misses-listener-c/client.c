#include <stdlib.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int ask(int port, const char *q)
{
    char buf[160];
    size_t len = 0;
    ssize_t n;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&a, sizeof a)) { perror("connect"); return -1; }
    if (write(fd, q, strlen(q)) < 0) { perror("write"); return -1; }
    while ((n = read(fd, buf + len, sizeof buf - 1 - len)) > 0) len += n;
    buf[len] = 0;
    printf("%d: %s", port, buf);
    fflush(stdout);
    close(fd);
    return len ? 0 : -1;
}

int main(int argc, char **argv)
{
    if (ask(atoi(argv[1]), "PUT temp 21\n") || ask(atoi(argv[1]), "PUT hum 40\n")) return 1;
    return ask(atoi(argv[2]), "STATUS\n") != 0;
}
