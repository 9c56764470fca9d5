#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    to.sin_addr.s_addr = inet_addr("127.0.0.1");
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) return 1;
    for (int i = 0; i < 2; i++) {
        static char all[65536];
        const char *request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        size_t size = 0;
        write(fd, request, strlen(request));
        while (size < 5 || memcmp(all + size - 5, "0\r\n\r\n", 5)) {
            ssize_t n = read(fd, all + size, sizeof all - size);
            if (n <= 0) return 1;
            size += n;
        }
        printf("%zu\n", size);
        sleep(1);
    }
    return 0;
}
