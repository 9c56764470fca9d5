#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

int main(void) {
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    struct sockaddr_un own = {.sun_family = AF_UNIX, .sun_path = "c.sock"}, from;
    bind(fd, (struct sockaddr *)&own, sizeof own);
    char line[200];
    for (;;) {
        socklen_t size = sizeof from;
        ssize_t n = recvfrom(fd, line, sizeof line, 0, (struct sockaddr *)&from, &size);
        sendto(fd, line, n, 0, (struct sockaddr *)&from, size);
    }
}
