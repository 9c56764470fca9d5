#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int read_full(int fd, void *p, size_t n)
{
    size_t got = 0;
    do {
        ssize_t r = read(fd, (char *)p + got, n - got);
        if (r <= 0) return (int)r;
        got += r;
    } while (got < n);
    return 1;
}

static struct sockaddr_in where(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(25250)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}
