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
    for (int i = 0; i < 40; i++) {
        char body[64], answer[64];
        int size = snprintf(body, sizeof body, "request number %d", i);
        uint32_t header = htonl(size);
        write(fd, &header, sizeof header);
        write(fd, body, size);
        for (int n = 0; n < size;) n += read(fd, answer + n, size - n);
    }
    return 0;
}
