#include <stdlib.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

static int stored;

static int listener(int port)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 8)) { perror("listen"); _exit(1); }
    return fd;
}

static void serve(int ls, int admin)
{
    char line[128], out[160];
    int fd = accept(ls, 0, 0);
    if (fd < 0) { perror("accept"); return; }
    FILE *in = fdopen(fd, "r");
    if (fgets(line, sizeof line, in)) {
        int n;
        if (admin) n = snprintf(out, sizeof out, "stored %d\n", stored);
        else { stored++; n = snprintf(out, sizeof out, "OK %d\n", stored); }
        if (write(fd, out, n) != n) perror("write");
    }
    fclose(in);
}

int main(int argc, char **argv)
{
    int data = listener(atoi(argv[1])), admin = listener(atoi(argv[2]));
    int top = data > admin ? data : admin;
    for (;;) {
        fd_set r;
        FD_ZERO(&r);
        FD_SET(data, &r);
        FD_SET(admin, &r);
        if (select(top, &r, NULL, NULL, NULL) < 0) { perror("select"); return 1; }
        if (FD_ISSET(data, &r)) serve(data, 0);
        if (FD_ISSET(admin, &r)) { serve(admin, 1); return 0; }
    }
}
