#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
    int listenfd, connfd, yes = 1;
    struct sockaddr_in addr;
    char buf[256];

    listenfd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listenfd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    memset(&addr, 0, sizeof addr);
    addr.sin_family = AF_INET;
    addr.sin_addr.s_addr = htonl(INADDR_ANY);
    addr.sin_port = htons(atoi(argv[1]));
    if (bind(listenfd, (struct sockaddr *)&addr, sizeof addr) < 0) {
        perror("bind");
        return 1;
    }
    listen(listenfd, 5);
    for (;;) {
        if ((connfd = accept(listenfd, NULL, NULL) < 0)) {
            perror("accept");
            exit(1);
        }
        ssize_t n = recv(connfd, buf, sizeof buf, 0);
        if (n <= 0) {
            perror("recv");
            continue;
        }
        send(connfd, buf, n, 0);
        close(connfd);
    }
}
