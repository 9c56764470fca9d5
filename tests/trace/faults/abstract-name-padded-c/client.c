#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sockaddr_un addr;
    char buf[128];
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    socklen_t len;

    memset(&addr, 0, sizeof addr);
    addr.sun_family = AF_UNIX;
    (void)argc;
    snprintf(addr.sun_path + 1, 40, "logd-%s", argv[2]);
    len = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(addr.sun_path + 1);
    if (connect(fd, (struct sockaddr *)&addr, len) < 0) {
        perror("connect");
        return 1;
    }
    write(fd, "started\n", 8);
    ssize_t n = read(fd, buf, sizeof buf);
    write(1, buf, n > 0 ? n : 0);
    return 0;
}
