#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

int main(void) {
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = "c.sock"};
    char line[200];
    sendto(fd, "question", 8, 0, (struct sockaddr *)&to, sizeof to);
    ssize_t n = recv(fd, line, sizeof line, 0);
    printf("%.*s\n", (int)n, line);
}
