#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    const char *name = argv[2];
    socklen_t len = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name);
    char buf[64];

    (void)argc;
    memcpy(addr.sun_path + 1, name, strlen(name));
    for (int i = 0; i < 3; i++) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&addr, len) < 0) {
            perror("connect");
            return 1;
        }
        for (int j = 0; j < 50 * (i + 1); j++)
            if (dprintf(fd, "line %d of a report\n", j) < 0)
                return 1;
        dprintf(fd, ".\n");
        ssize_t n = 0, r;
        while (n < (ssize_t)sizeof buf && (r = read(fd, buf + n, sizeof buf - n)) > 0) {
            n += r;
            if (buf[n - 1] == '\n')
                break;
        }
        printf("%.*s", (int)n, buf);
        close(fd);
    }
    return 0;
}
