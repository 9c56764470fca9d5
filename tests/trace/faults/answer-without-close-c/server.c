#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct sockaddr_in a = {AF_INET, htons(atoi(argv[1])), {htonl(INADDR_LOOPBACK)}};
    int s = socket(AF_INET, SOCK_STREAM, 0);
    bind(s, (struct sockaddr *)&a, sizeof a);
    listen(s, 5);
    for (;;) {
        int c = accept(s, NULL, NULL);
        char buf[256];
        ssize_t n = recv(c, buf, sizeof buf, 0);
        if (n > 0) send(c, buf, n, 0);
    }
}
