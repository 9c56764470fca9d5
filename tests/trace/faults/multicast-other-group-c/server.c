#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int argc, char **argv) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    own.sin_addr.s_addr = inet_addr("239.1.2.4");
    bind(fd, (struct sockaddr *)&own, sizeof own);
    struct ip_mreq group = {.imr_multiaddr.s_addr = inet_addr("239.1.2.4")};
    setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group);
    char line[200];
    ssize_t n;
    while ((n = recv(fd, line, sizeof line, 0)) > 0) printf("%.*s\n", (int)n, line);
}
