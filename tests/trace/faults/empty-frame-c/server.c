#include "proto.h"

int main(void)
{
    int one = 1, ls = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = where();
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(ls, (struct sockaddr *)&a, sizeof a) || listen(ls, 4)) { perror("listen"); return 1; }
    int fd = accept(ls, 0, 0);
    if (fd < 0) { perror("accept"); return 1; }
    static char body[65536];
    uint16_t len;
    int rc;
    while ((rc = read_full(fd, &len, 2)) > 0) {
        len = ntohs(len);
        if ((rc = read_full(fd, body, len)) <= 0) break;
        printf("entry: %.*s\n", len, body);
        if (send(fd, "+", 1, MSG_NOSIGNAL) != 1) break;
    }
    puts(rc < 0 ? "client failed" : "client left");
    close(fd);
    close(ls);
    return 0;
}
