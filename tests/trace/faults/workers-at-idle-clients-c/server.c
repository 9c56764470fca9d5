/* Two workers accept on one listener and serve a client each. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void serve(int listener)
{
    char buf[512];
    for (int served = 0; served < 2; served++) {
        int c = accept(listener, NULL, NULL);
        ssize_t n;
        while ((n = read(c, buf, sizeof buf)) > 0)
            write(c, buf, n);
        close(c);
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    bind(listener, (struct sockaddr *)&a, sizeof a);
    listen(listener, 8);
    for (int i = 0; i < 2; i++)
        if (fork() == 0) {
            serve(listener);
            _exit(0);
        }
    close(listener);
    while (wait(NULL) > 0)
        ;
}
