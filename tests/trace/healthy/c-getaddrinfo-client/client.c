#define _GNU_SOURCE
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found, *each;
    if (getaddrinfo("localhost", argv[1], &hints, &found)) return 1;
    int fd = -1;
    for (each = found; each; each = each->ai_next) {
        fd = socket(each->ai_family, each->ai_socktype, each->ai_protocol);
        if (fd >= 0 && connect(fd, each->ai_addr, each->ai_addrlen) == 0) break;
        close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    if (fd < 0) return 1;
    dprintf(fd, "a line\n");
    char buffer[200];
    ssize_t n, total = 0;
    while ((n = read(fd, buffer + total, sizeof buffer - total)) > 0) total += n;
    write(1, buffer, total);
    close(fd);
    return 0;
}
