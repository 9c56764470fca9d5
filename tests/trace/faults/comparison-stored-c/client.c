#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
    struct sockaddr_in addr = {0};
    char reply[256];
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    addr.sin_family = AF_INET;
    addr.sin_port = htons(atoi(argv[1]));
    inet_pton(AF_INET, "127.0.0.1", &addr.sin_addr);
    if (connect(fd, (struct sockaddr *)&addr, sizeof addr) < 0) {
        perror("connect");
        return 1;
    }
    send(fd, "hello", 5, 0);
    ssize_t n = recv(fd, reply, sizeof reply - 1, 0);
    if (n > 0) {
        reply[n] = 0;
        printf("%s\n", reply);
    }
    close(fd);
    return 0;
}
