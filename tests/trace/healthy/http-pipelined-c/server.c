#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Answers each request with two writes; keeps the connection. */
int main(int argc, char **argv) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    bind(listener, (struct sockaddr *)&here, sizeof here);
    listen(listener, 5);
    for (;;) {
        int c = accept(listener, 0, 0);
        char buf[8192] = "";
        size_t size = 0;
        ssize_t n;
        setsockopt(c, 6, 1, &one, sizeof one);
        while ((n = read(c, buf + size, sizeof buf - 1 - size)) > 0) {
            char *end;
            buf[size += n] = 0;
            while ((end = strstr(buf, "\r\n\r\n"))) {
                char body[4000], head[100];
                memset(body, 'b', sizeof body);
                int is_head = !strncmp(buf, "HEAD", 4);
                dprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", sizeof body);
                if (!is_head) write(c, body, sizeof body);
                size -= end + 4 - buf;
                memmove(buf, end + 4, size + 1);
            }
        }
        close(c);
    }
}
