#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct __attribute__((packed)) frame_head {
    uint8_t kind;
    uint16_t length;
};

static int send_frame(int fd, uint8_t kind, const char *text)
{
    char frame[512];
    struct frame_head head = {.kind = kind, .length = htons(strlen(text))};
    memcpy(frame, &head, sizeof head);
    memcpy(frame + sizeof head, text, strlen(text));
    return send(fd, frame, sizeof head + strlen(text), 0) < 0 ? -1 : 0;
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        perror("connect");
        return 1;
    }
    if (send_frame(fd, 1, "temperature 21 degrees in the hall") < 0) {
        perror("send");
        return 1;
    }
    char reply[512];
    ssize_t n = recv(fd, reply, sizeof reply, 0);
    printf("%zd bytes of reply\n", n);
    close(fd);
    return 0;
}
