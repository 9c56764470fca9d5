#include <arpa/inet.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct header {
    uint32_t length, secret;
    uint16_t step, student;
};

int main(int argc, char **argv)
{
    static const char hello[12] = "hello world";
    struct sockaddr_in me = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])) }, peer;
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    if (argc < 2 || bind(s, (struct sockaddr *)&me, sizeof me) < 0)
        return 1;
    for (;;) {
        char in[1024], out[28];
        struct header h;
        socklen_t size = sizeof peer;
        ssize_t n = recvfrom(s, in, sizeof in, 0, (struct sockaddr *)&peer, &size);
        if (n < (ssize_t)sizeof h)
            continue;
        memcpy(&h, in, sizeof h);
        if (ntohl(h.length) != n - sizeof h || h.secret != 0 || ntohs(h.step) != 1)
            continue;
        if (n - sizeof h != sizeof hello || memcmp(in + sizeof h, hello, sizeof hello) != 0)
            continue;
        h.length = htonl(16);
        h.step = htons(2);
        uint32_t reply[4] = { htonl(5 + rand() % 20), htonl(rand() % 50), htonl(20000 + rand() % 20000), htonl(rand()) };
        memcpy(out, &h, sizeof h);
        memcpy(out + sizeof h, reply, sizeof reply);
        sendto(s, out, sizeof out, 0, (struct sockaddr *)&peer, size);
    }
}
