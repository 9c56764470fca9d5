#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int one = 1, w = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    setsockopt(w, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    bind(w, (void *)&a, sizeof a);
    listen(w, 5);
    char line[64];
    size_t used = 0;
    int c = accept(w, 0, 0);
    while (!memchr(line, '\n', used)) {
        ssize_t n = recv(c, line + used, sizeof line - used, 0);
        if (n <= 0) { close(c); return 0; }  /* the client has gone */
        used += n;
    }
    send(c, line, used, 0);
    close(c);
}
