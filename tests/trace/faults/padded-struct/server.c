#include <stdlib.h>
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct reading {
    uint16_t meter;
    uint8_t kind;
    uint32_t value;
};

int main(int argc, char **argv)
{
    int ls = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])) };
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(ls, (struct sockaddr *)&a, sizeof a) < 0) { perror("bind"); return 1; }
    listen(ls, 5);
    int c = accept(ls, NULL, NULL);
    uint8_t count = 0;
    recv(c, &count, 1, 0);
    for (int i = 0; i < count; i++) {
        struct reading r;
        if (recv(c, &r, sizeof r, MSG_WAITALL) != (ssize_t)sizeof r) {
            fprintf(stderr, "short record\n");
            return 1;
        }
        printf("meter %u kind %c value %u\n", ntohs(r.meter), r.kind, ntohl(r.value));
        fflush(stdout);
    }
    send(c, "OK", 2, 0);
    close(c);
    return 0;
}
