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
    int s = socket(AF_UNIX, SOCK_STREAM, 0);

    memset(&addr, 0, sizeof addr);
    addr.sun_family = AF_UNIX;
    addr.sun_path[0] = '\0';
    (void)argc;
    snprintf(addr.sun_path + 1, 40, "logd-%s", argv[2]);
    if (bind(s, (struct sockaddr *)&addr, sizeof addr) < 0) {
        perror("bind");
        return 1;
    }
    listen(s, 5);
    for (;;) {
        int c = accept(s, NULL, NULL);
        ssize_t n = read(c, buf, sizeof buf);
        if (n > 0)
            write(c, "ok\n", 3);
        close(c);
    }
}
