#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct sockaddr_in a = {AF_INET, htons(atoi(argv[1])), {htonl(INADDR_LOOPBACK)}};
    int s = socket(AF_INET, SOCK_STREAM, 0), c, one = 1;
    char buf[32768];
    ssize_t n;
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    bind(s, (struct sockaddr *)&a, sizeof a);
    listen(s, 5);
    while ((c = accept(s, NULL, NULL)) >= 0) {
        while ((n = read(c, buf, sizeof buf)) > 0)
            for (ssize_t sent = 0; sent < n;) sent += write(c, buf + sent, n - sent);
        close(c);
    }
}
