#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <sys/socket.h>
struct header { uint8_t type; uint32_t length; };
int main(int argc, char **argv) {
    int l = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(l, (struct sockaddr *)&a, sizeof a) || listen(l, 8)) { perror("bind"); return 1; }
    for (;;) {
        int c = accept(l, NULL, NULL);
        struct header h;
        while (recv(c, &h, sizeof h, MSG_WAITALL) == sizeof h) {
            uint32_t n = ntohl(h.length);
            char *p = malloc((size_t)n + 1);
            if (!p || recv(c, p, n, MSG_WAITALL) != (ssize_t)n) { free(p); break; }
            p[n] = 0;
            send(c, p, n, MSG_NOSIGNAL);
            free(p);
        }
        close(c);
    }
}
