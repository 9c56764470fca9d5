#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0), on = 1;
    (void)argc;
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    inet_pton(AF_INET, "127.0.0.1", &local.sin_addr);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&local, sizeof local) != 0) return 1;
    struct ip_mreq group = {.imr_interface = local.sin_addr};
    inet_pton(AF_INET, "239.7.7.7", &group.imr_multiaddr);
    if (setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group) != 0) return 1;
    for (;;) {
        char news[512];
        ssize_t n = recv(fd, news, sizeof news, 0);
        if (n > 0) printf("%.*s\n", (int)n, news);
    }
}
