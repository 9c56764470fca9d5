#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct header {
    uint16_t kind;
    uint32_t length;
};

int main(int argc, char **argv)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])) };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) { perror("connect"); return 1; }
    const char *text = "measure the temperature";
    struct header h;
    memset(&h, 0, sizeof h);
    h.kind = 7;
    h.length = strlen(text);
    send(fd, &h, sizeof h, 0);
    send(fd, text, strlen(text), 0);
    char buf[256];
    ssize_t n = recv(fd, buf, sizeof buf, 0);
    printf("%.*s\n", n > 0 ? (int)n : 0, buf);
    close(fd);
    return 0;
}
