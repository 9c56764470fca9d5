#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct sockaddr_in a = {AF_INET, htons(atoi(argv[1])), {htonl(INADDR_LOOPBACK)}};
    int s = socket(AF_INET, SOCK_STREAM, 0);
    uint32_t size = 9000000, header = htonl(size);
    char *picture = calloc(size, 1), request[16];
    bind(s, (struct sockaddr *)&a, sizeof a);
    listen(s, 5);
    int c = accept(s, NULL, NULL);
    fcntl(c, F_SETFL, O_NONBLOCK);
    struct pollfd p = {c, POLLIN};
    for (;;) {
        poll(&p, 1, -1);
        if (recv(c, request, sizeof request, 0) <= 0)
            break;
        send(c, &header, sizeof header, 0);
        send(c, picture, size, 0);
    }
}
