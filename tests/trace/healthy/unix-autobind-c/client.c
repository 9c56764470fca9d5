#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(void) {
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    struct sockaddr_un own = {.sun_family = AF_UNIX}, to = {.sun_family = AF_UNIX, .sun_path = "control"};
    bind(fd, (struct sockaddr *)&own, sizeof own.sun_family);
    connect(fd, (struct sockaddr *)&to, sizeof to);
    for (int i = 0; i < 3; i++) {
        send(fd, "status", 6, 0);
        char line[100];
        ssize_t n = recv(fd, line, sizeof line, 0);
        printf("%.*s\n", (int)n, line);
    }
}
