#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(void) {
    struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = "log"};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    connect(fd, (struct sockaddr *)&to, sizeof to);
    for (int i = 0; i < 20; i++) {
        char line[100];
        int n = sprintf(line, "<13>test: message %d", i);
        send(fd, line, n, MSG_NOSIGNAL);
    }
    close(fd);
}
