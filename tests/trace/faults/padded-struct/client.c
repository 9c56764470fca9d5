#include <stdlib.h>
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char *put(char *p, const void *v, size_t n) { memcpy(p, v, n); return p + n; }

int main(int argc, char **argv)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])) };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) { perror("connect"); return 1; }

    char msg[256], *p = msg;
    uint8_t count = 6;
    p = put(p, &count, 1);
    for (int i = 0; i < count; i++) {
        uint16_t meter = htons(100 + i);
        uint8_t kind = "GWE"[i % 3];
        uint32_t value = htonl(5000 + 37 * i);
        p = put(p, &meter, sizeof meter);
        p = put(p, &kind, sizeof kind);
        p = put(p, &value, sizeof value);
    }
    for (char *q = msg; q < p; ) {
        ssize_t n = send(fd, q, p - q, 0);
        if (n < 0) { perror("send"); return 1; }
        q += n;
    }
    char ok[2];
    if (recv(fd, ok, 2, MSG_WAITALL) != 2) { printf("not confirmed\n"); return 1; }
    printf("server says %.2s\n", ok);
    close(fd);
    return 0;
}
