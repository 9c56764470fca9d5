#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <sys/socket.h>
int main(int argc, char **argv) {
    for (int i = 0; i < 1; i++) {
        int s = socket(AF_INET, SOCK_STREAM, 0);
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
        a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        if (connect(s, (struct sockaddr *)&a, sizeof a)) { perror("connect"); return 1; }
        const char *q = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        send(s, q, strlen(q), 0);
        char buf[1024]; ssize_t n;
        while ((n = recv(s, buf, sizeof buf, 0)) > 0) fwrite(buf, 1, n, stdout);
        close(s);
    }
    return 0;
}
